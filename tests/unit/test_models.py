import json
import os
import shutil
from pathlib import Path

import httpx
import huggingface_hub
import huggingface_hub.constants as hub_constants
import pytest
import torch
from huggingface_hub import errors
from refusals import refused
from safetensors.torch import load_file, save_file

from crunchmark.machine import ROOT
from crunchmark.models import ModelSpec, dtype_of

NANO = ROOT / "tasks" / "nano" / "model"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A Llama of one block with the built-in world's tokenizer, in its own folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("small")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=1088, tie_word_embeddings=True)).save_pretrained(folder)
    for file in NANO.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def folder(small, tmp_path):
    """A copy of it to break."""
    return Path(shutil.copytree(small, tmp_path / "net"))


def weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_loads_in_float32_and_eval_mode_with_its_tokenizer(folder):
    spec = ModelSpec(str(folder))
    model = spec.load()
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert len(spec.tokenizer()) == 1088
    assert spec.storage == torch.bfloat16


def test_the_fingerprint_is_of_config_and_weights_only(folder):
    first = ModelSpec(str(folder)).fingerprint
    (folder / "README.md").write_text("x")
    assert ModelSpec(str(folder), name="else").fingerprint == first
    weights(folder, lambda t: t["model.norm.weight"].add_(1))
    second = ModelSpec(str(folder)).fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    third = ModelSpec(str(folder)).fingerprint
    (folder / "chat_template.jinja").write_text("{{ messages }}")  # decides prompts
    assert len({first, second, third, ModelSpec(str(folder)).fingerprint}) == 4


def test_a_chat_template_of_its_own_file_comes_from_the_hub_too(monkeypatch, small):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda path, **how: (asked.update(how), str(small))[1]
    )
    assert ModelSpec("me/net").folder == small
    wanted = asked["allow_patterns"]
    assert any(Path("chat_template.jinja").match(pattern) for pattern in wanted)


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        ({"path": "tasks/nano/model"}, "nano"),
        ({"path": "facebook/opt-125m"}, "opt-125m"),
        ({"path": "EleutherAI/pythia-160m", "revision": "step1000"}, "pythia-160m@step1000"),
        ({"path": "/data/nets/mine"}, "mine"),
        ({"path": "/data/nets/mine", "name": "ours"}, "ours"),
    ],
)
def test_titles_tell_models_apart(spec, title):
    assert ModelSpec(**spec).title == title


def test_shipped_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(folder.parent)
    assert ModelSpec("tasks/nano/model").folder == NANO
    assert ModelSpec("net").folder == folder


def test_storage_follows_the_checkpoint_or_the_field(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert ModelSpec(str(folder)).storage == torch.float16
    refused(lambda: ModelSpec(str(folder), dtype="float32").storage, "model.dtype='float32'", "valid: auto")
    refused(lambda: ModelSpec(str(folder), dtype="foo").storage, "model.dtype='foo'", "valid: auto, bfloat16")
    refused(lambda: dtype_of("model.compute", "int8"), "model.compute='int8'")


def test_no_folder_and_no_config(folder, tmp_path):
    refused(lambda: ModelSpec("").folder, "model.path='' is empty; valid: a folder or a hub id")
    refused(lambda: ModelSpec(None).folder, "model.path=None is empty")
    refused(
        lambda: ModelSpec("/no/such/net").folder, "model.path=/no/such/net is no local folder", "no hub id"
    )
    refused(lambda: ModelSpec(str(folder / "config.json")).folder, "is no local folder")
    (folder / "config.json").unlink()
    refused(lambda: ModelSpec(str(folder)).folder, f"model.path={folder} holds no config.json")


def test_a_config_that_is_broken_or_of_no_known_kind(folder):
    config = json.loads((folder / "config.json").read_text())

    def with_config(text, **options):
        (folder / "config.json").write_text(text)
        return lambda: ModelSpec(str(folder), **options).load()

    refused(with_config('{"model_type": '), "config.json that is no JSON")
    refused(with_config("[]"), "config.json without model_type")
    refused(with_config("{}"), "config.json without model_type")
    refused(with_config(json.dumps(config | {"model_type": "lama"})), "'lama'", "unknown; valid:", "llama")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    refused(with_config(json.dumps(config | own)), "'own'", "valid: model.trust_remote_code=true")
    narrower = json.dumps(config | {"hidden_size": 8, "head_dim": 4})
    refused(with_config(narrower), f"model.path={folder}")


def test_own_code_runs_only_when_asked_for(folder):
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'own'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    assert type(ModelSpec(str(folder), trust_remote_code=True).load()).__name__ == "M"


def test_weights_that_are_missing_are_named_and_never_made_up(folder):
    weights(folder, lambda t: t.pop("model.layers.0.mlp.up_proj.weight"))
    refused(lambda: ModelSpec(str(folder)).load(), "lacks the weights model.layers.0.mlp.up_proj.weight;")
    weights(folder, lambda t: [t.pop(k) for k in list(t) if "layers.0" in k])
    refused(lambda: ModelSpec(str(folder)).load(), "and 5 more; valid: the weights")


def test_a_tied_head_is_not_missing(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = ModelSpec(str(folder)).load()
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_are_named(folder, bad):
    def spoil(tensors):
        tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = bad

    weights(folder, spoil)
    refused(lambda: ModelSpec(str(folder)).load(), "layers.0.self_attn.q_proj.weight holds nan or inf")


def test_files_that_are_cut_off_or_no_safetensors(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:5],
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
    ):
        file.write_bytes(content)
        size = f"model.safetensors, {len(content)} bytes that can not be read"
        refused(lambda: ModelSpec(str(folder)).folder, size, "valid: a complete safetensors file")


def test_a_missing_shard_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00002.safetensors")}
    index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(lambda: ModelSpec(str(folder)).load(), "model-00002-of-00002.safetensors")


def test_pickles_are_refused_and_named(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(lambda: ModelSpec(str(folder)).folder, "no *.safetensors (refused, pickles: pytorch_model.bin)")


def test_no_tokenizer_and_a_broken_one(folder):
    (folder / "tokenizer.json").write_text("{")
    refused(lambda: ModelSpec(str(folder)).tokenizer(), "its tokenizer can not be read")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(lambda: ModelSpec(str(folder)).tokenizer(), "holds no tokenizer; valid:", "tokenizer.json")


def test_without_network_a_hub_model_is_refused(no_network):
    refused(
        lambda: ModelSpec("meta-llama/Llama-2-7b-hf").folder,
        "model.path=meta-llama/Llama-2-7b-hf",
        "the hub is offline and it is not in the cache",
    )
    refused(lambda: ModelSpec("facebook/opt-125m").folder, "facebook/opt-125m")
    assert no_network in ([1.0], [1.0, 1.0])  # once a minute, not once per question
    assert hub_constants.HF_HUB_OFFLINE is False


def test_a_snapshot_in_the_cache_works_without_network(no_network, small, tmp_path):
    home, commit = tmp_path / "cache" / "models--me--net", "a" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(small, home / "snapshots" / commit)
    spec = ModelSpec("me/net")
    assert spec.title == "net"
    assert spec.load().config.hidden_size == 16
    assert len(spec.tokenizer()) == 1088
    assert ModelSpec("me/net", revision=commit).fingerprint == ModelSpec(str(small)).fingerprint
    refused(lambda: ModelSpec("me/net", revision="v2").folder, "me/net", "offline")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (errors.GatedRepoError, "gated: ask for access on its page and set HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no such model, or it is private"),
        (errors.RevisionNotFoundError, "at revision 'v9' it has no such revision"),
        (errors.HfHubHTTPError, "HfHubHTTPError: 500"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, kind, text):
    def refuse(*_, local_files_only, **__):
        assert not local_files_only
        raise kind("500\nmore lines", response=httpx.Response(500, request=httpx.Request("GET", "https://x")))

    monkeypatch.setattr("crunchmark.hub.reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    refused(lambda: ModelSpec("meta-llama/Llama-2-7b-hf", revision="v9").folder, "meta-llama", text)


def test_every_shipped_model_is_a_spec_and_none_is_named_twice():
    import yaml

    files = sorted((ROOT / "conf" / "model").glob("*.yaml"))
    specs = [ModelSpec(**yaml.safe_load(file.read_text())) for file in files]
    assert len(files) >= 10
    assert len({spec.title for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.dtype == "auto"
        assert not spec.trust_remote_code


def test_a_proxy_is_asked_instead_of_the_hub(monkeypatch):
    from crunchmark import hub

    asked = []

    class Socket:
        def close(self):
            asked.append("closed")

    def connect(address, timeout):
        asked.append(address)
        return Socket()

    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setattr("socket.create_connection", connect)
    hub._knock.cache_clear()
    assert hub.reachable()
    assert hub.reachable()
    hub._knock.cache_clear()
    assert asked == [("proxy.example", 3128), "closed"]
    assert os.environ["HTTPS_PROXY"]
