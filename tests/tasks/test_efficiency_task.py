"""What the task asks of a scene and what it yields; no test looks at how long something took."""

import pytest
import torch

from crunchmark.efficiency import resident_bytes
from crunchmark.evaluate import rows
from crunchmark.task import Scene
from crunchmark.terms import LowRank
from crunchmark.view import View
from tasks import efficiency
from tasks.efficiency import Efficiency, Point

QUICK = {"batches": [1], "lengths": [8], "new": 2, "repeats": 3, "warmup": 0}


@pytest.fixture(autouse=True)
def quick_roof(monkeypatch):
    monkeypatch.setattr("crunchmark.efficiency.SIDE", {"cpu": 32})
    monkeypatch.setattr("crunchmark.efficiency.OPS", 2)


class Spy(Scene):
    """Models of a family; remembers what was asked for."""

    tokenizer = None

    def __init__(self, tiny, family="llama"):
        self.make, self.asked = lambda: tiny(family), []

    def model(self, packed=False):
        self.asked.append(("model", packed))
        model = self.make()
        for site in View(model).all_sites():
            u, s, v = torch.linalg.svd(site.weight(), full_matrices=False)
            term = LowRank.of(u[:, :4] * s[:4], v[:4], torch.float32)
            site.install(term, packed=packed)
        return model.eval()

    def dense(self, packed=False):
        self.asked.append(("dense", packed))
        return self.make()

    def sizes(self):
        return {"file_bytes": 1234}

    def remembered(self, protocol, make):
        raise AssertionError("nothing is remembered")


def asked(task, scene):
    items = list(task.ask(scene))
    return {r["metric"]: r for r in rows("e", task.protocol(), items, task.metrics(), None)}, items


def test_the_packed_form_is_what_runs(tiny, monkeypatch):
    scene, ran = Spy(tiny), []
    monkeypatch.setattr(LowRank, "forward", spied(LowRank.forward, ran))
    found, _ = asked(Efficiency(**QUICK), scene)
    assert scene.asked == [("model", True), ("dense", True)]
    assert len(ran) > 0
    weights = {n: p.numel() for n, p in tiny("llama").named_parameters() if "proj" in n}
    packed = sum(4 * (o + i) for o, i in View(tiny("llama")).layers().values())
    other = found["flops_prefill_b1_l8"]["value"] - 2 * 8 * packed
    (dense_rows, _) = asked(Efficiency(**QUICK), Plain(tiny))
    assert dense_rows["flops_prefill_b1_l8"]["value"] == 2 * 8 * sum(weights.values()) + other


class Plain(Spy):
    """The dense parent as a cell."""

    def model(self, packed=False):
        return self.dense(packed)


def spied(forward, ran):
    def run(self, x):
        ran.append(x.shape)
        return forward(self, x)

    return run


def test_metrics_by_name(tiny):
    task = Efficiency(**QUICK | {"batches": [2, 1]})
    found, items = asked(task, Spy(tiny))
    assert next(iter(found)) == "speedup_decode_b1_l8"
    for point in ("b1_l8", "b2_l8"):
        for phase in ("decode", "prefill"):
            for kind in ("ms", "p95_ms", "tps"):
                row = found[f"{phase}_{kind}_{point}"]
                assert (row["n"], row["value"] > 0) == (3, True)
                bound = {f: n for f, n in row["flags"].items() if f != "busy"}
                assert sum(bound.values()) == 3
                assert set(bound) <= {"compute_bound", "memory_bound", "launch_bound"}
            assert found[f"speedup_{phase}_{point}"]["kind"] == "median"
            assert found[f"flops_{phase}_{point}"]["n"] == 1
    assert found["file_bytes"]["value"] == 1234
    assert found["peak_bytes"]["value"] >= found["resident_bytes"]["value"] > 0
    assert all(m.margin is None for m in task.metrics().values())
    assert len({(i.id, i.metric) for i in items}) == len(items)


def test_a_speedup_is_of_the_same_turn(tiny, monkeypatch):
    # (prefill, decode) of ours, dense; then of dense, ours
    ticks = iter([(1.0, 8.0), (2.0, 4.0), (3.0, 3.0), (6.0, 3.0)])
    monkeypatch.setattr(efficiency, "read_and_write", lambda model, ids, new: next(ticks))
    monkeypatch.setattr(efficiency, "work_of", lambda run: efficiency.Work())
    task = Efficiency(**QUICK | {"repeats": 2})
    monkeypatch.setattr(Efficiency, "_sizes", lambda *_: iter(()))
    items = {(i.metric, i.id[-3:]): i.score for i in task.ask(Spy(tiny))}
    assert [items["speedup_decode_b1_l8", f"00{i}"] for i in (0, 1)] == [0.5, 1.0]
    assert [items["speedup_prefill_b1_l8", f"00{i}"] for i in (0, 1)] == [2.0, 0.5]
    assert items["decode_ms_b1_l8", "000"] == 1000 * 8 / 2  # per token
    assert items["decode_tps_b1_l8", "000"] == 2 / 8
    assert items["prefill_tps_b1_l8", "000"] == 8


def test_a_point_beyond_the_context_is_left_out_and_said(tiny):
    found, _ = asked(Efficiency(**QUICK | {"lengths": [8, 63]}), Spy(tiny))
    assert found["decode_ms_b1_l8"]["coverage"] == 1
    for name in ("decode_ms_b1_l63", "flops_prefill_b1_l63", "energy_j_b1_l63"):
        assert (found[name]["value"], found[name]["coverage"]) == (None, 0)
        assert list(found[name]["flags"]) == ["beyond_context"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_point_beyond_the_memory_is_left_out_and_said(tiny, monkeypatch, error):
    real = efficiency.read_and_write

    def small(model, ids, new):
        if len(ids) > 1:
            raise error
        return real(model, ids, new)

    monkeypatch.setattr(efficiency, "read_and_write", small)
    found, _ = asked(Efficiency(**QUICK | {"batches": [1, 2]}), Spy(tiny))
    assert found["decode_ms_b1_l8"]["coverage"] == 1
    assert found["decode_ms_b2_l8"]["flags"] == {"beyond_memory": 3}
    assert found["peak_bytes"]["value"] is None


def test_a_system_that_tells_no_peak_has_none_and_not_zero(tiny, monkeypatch):
    monkeypatch.setattr("crunchmark.machine._high_water", lambda: 0)
    found, _ = asked(Efficiency(**QUICK), Spy(tiny))
    assert (found["peak_bytes"]["value"], found["peak_bytes"]["coverage"]) == (None, 0)


@pytest.mark.parametrize(("busy", "flagged"), [(0.0, 0), (1.5, 3), (None, 0)])
def test_a_row_says_that_something_ran_beside_it(tiny, monkeypatch, busy, flagged):
    monkeypatch.setattr(efficiency.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(efficiency.Others, "busy", lambda self: busy)
    found, items = asked(Efficiency(**QUICK), Spy(tiny))
    for name in ("decode_ms_b1_l8", "speedup_prefill_b1_l8"):
        assert found[name]["flags"].get("busy", 0) == flagged
    assert {i.extra["others"] for i in items if i.metric == "decode_ms_b1_l8"} == {busy}


def test_another_error_is_no_lack_of_memory(tiny, monkeypatch):
    def boom(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(efficiency, "read_and_write", boom)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(Efficiency(**QUICK).ask(Spy(tiny)))


def test_energy_is_blank_where_nothing_counts_it(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr("crunchmark.energy.POWERCAP", tmp_path)
    monkeypatch.setattr(efficiency, "Energy", lambda device: efficiency_energy(device, tmp_path))
    found, items = asked(Efficiency(**QUICK), Spy(tiny))
    assert (found["energy_j_b1_l8"]["value"], found["energy_j_b1_l8"]["flags"]) == (None, {"no_counter": 3})
    reasons = {i.extra["reason"] for i in items if i.metric == "energy_j_b1_l8"}
    assert reasons == {"no RAPL counter here"}


def efficiency_energy(device, folder):
    from crunchmark.energy import Energy

    return Energy(device, folder)


@pytest.mark.slow
def test_every_family_runs(tiny, family):
    found, _ = asked(Efficiency(**QUICK | {"repeats": 2}), Plain(tiny, family))
    assert found["speedup_decode_b1_l8"]["value"] > 0


def test_the_id_names_grid_repeats_and_machine(monkeypatch):
    ids = {Efficiency(**QUICK | change).protocol() for change in (
        {}, {"batches": [2]}, {"lengths": [9]}, {"new": 3}, {"repeats": 4}, {"warmup": 1})}  # fmt: skip
    assert len(ids) == 6
    before = Efficiency().protocol()
    assert before.startswith("speed-cpu-t")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert Efficiency().protocol() != before
    finally:
        torch.set_num_threads(threads)
    assert Efficiency().protocol() == before
    monkeypatch.setattr("crunchmark.machine.processor", lambda: "another")
    assert Efficiency().protocol() != before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batches", []),
        ("batches", [0]),
        ("batches", 3),
        ("lengths", "128"),
        ("new", 0),
        ("repeats", 1),
        ("warmup", -1),
    ],
)
def test_settings_that_can_not_be(field, value):
    with pytest.raises(ValueError, match=rf"efficiency\.{field}="):
        Efficiency(**{field: value})


def test_points_are_the_whole_grid_once():
    task = Efficiency(batches=[4, 1, 4], lengths=[16, 8], new=2)
    assert [str(p) for p in task.points] == ["b1_l8", "b1_l16", "b4_l8", "b4_l16"]
    assert Point(4, 16, 2).tokens("decode") == 8


def test_rows_compare_with_the_parent_of_the_same_turns(tiny, monkeypatch):
    speeds = {"Spy": (1.0, 4.0), "Plain": (5.0, 6.0)}
    own = Efficiency(**QUICK)

    def measure(scene, ours, dense):
        turn = {"model": efficiency.Turn(*ours, None), "dense": efficiency.Turn(*dense, None)}
        monkeypatch.setattr(efficiency, "by_turns", lambda *_: [turn] * 3)
        return list(own.ask(scene))

    ours = measure(Spy(tiny), speeds["Spy"], (2.0, 2.0))
    theirs = measure(Plain(tiny), speeds["Plain"], speeds["Plain"])
    found = {r["metric"]: r for r in rows("e", "p", ours, own.metrics(), theirs)}
    decode, prefill = found["decode_ms_b1_l8"], found["prefill_ms_b1_l8"]
    assert (decode["value"], decode["dense"]) == (500, 1000)  # two tokens a turn
    assert (prefill["value"], prefill["dense"]) == (4000, 2000)
    assert (found["speedup_decode_b1_l8"]["value"], found["speedup_decode_b1_l8"]["dense"]) == (2, 1)
    assert found["resident_bytes"]["dense"] == resident_bytes(tiny("llama"))
    assert {r["state"] for r in found.values()} == {"measured"}
