"""Rows of a cell, a stand-in for the wandb package, and offline runs read back."""

import json
import math
import struct
import time
import zlib
from types import SimpleNamespace

from wandb.proto.wandb_internal_pb2 import Record

CONFIG = {"study": "demo", "budget": 0.3, "method": {"_target_": "methods.svd.SVD"}, "limit": None}
CELL = {
    **{"study": "demo", "cell": "5c" * 32, "model": "nano", "method": "svd", "budget": 0.3},
    **{"achieved_bytes": 0.299, "file_bytes": 3_100_000, "compress_seconds": 3.2, "peak_memory_bytes": 7},
}
SCORE = {"task": "nano_factoid", "metric": "exact_match", "value": 0.75, "stderr": 0.02, "state": "fail"}
PPL = {"task": "ppl", "metric": "perplexity", "value": math.inf, "stderr": None, "state": "fail"}
NAN = PPL | {"metric": "bits", "value": None}  # how the store holds a nan
ROWS = [CELL | SCORE | {"eval_seconds": 1.5}, *(CELL | row | {"eval_seconds": 0.5} for row in (PPL, NAN))]
LOST = [CELL | {"state": "unreachable", "reason": "no rank fits", "nearest_budget": 0.4}]


class Fake:
    """What the tracker uses of the wandb package; `reach` is whether its server answers."""

    def __init__(self, reach=True, mode="online", key="k" * 40):
        self.reach, self.sent, self.torn, self.Settings = reach, [], 0, SimpleNamespace
        self.settings = SimpleNamespace(
            mode=mode, api_key=key, identity_token_file=None, base_url="https://api.wandb.ai"
        )

    def setup(self, settings=None):
        return SimpleNamespace(settings=self.settings)

    def teardown(self):
        self.torn += 1

    def init(self, settings, **options):
        if settings.mode == "online" and not self.reach:
            raise ConnectionError("no answer\nfrom the server")
        self.sent.append((settings.mode, options["id"], options["resume"]))
        return SimpleNamespace(summary={}, finish=lambda: None)


def records(path):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    data, at, record = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # no chunk header fits: padding
            at += left
            continue
        check, size, kind = struct.unpack_from("<IHB", data, at)
        chunk = data[at + 7 : at + 7 + size]
        assert zlib.crc32(bytes([kind]) + chunk) == check
        at, record = at + 7 + size, record + chunk
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def folders(root):
    return sorted((root / "wandb").glob("offline-run-*"))


def read(folder):
    """The run record, config and summary of an offline run; the service writes them within moments."""
    (path,) = folder.glob("*.wandb")
    for _ in range(200):
        found = list(records(path)) if path.stat().st_size else []
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        time.sleep(0.05)
    run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    summary = {}
    for record in found:
        summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    return run, config, summary
