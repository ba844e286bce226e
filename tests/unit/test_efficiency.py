"""What speed is measured by. No test here looks at how long something took."""

import itertools
import mmap

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crunchmark import efficiency, machine
from crunchmark.efficiency import Roof, Work, by_turns, peak_bytes, read_and_write, resident_bytes, work_of
from crunchmark.energy import Energy


def test_turns_alternate_and_warm_ups_do_not_count():
    order, clock = [], itertools.count()
    racers = {n: lambda n=n: (order.append(n), next(clock))[1] for n in ("model", "dense")}
    found = by_turns(racers, repeats=3, warmup=1)
    assert order == ["model", "dense", "dense", "model", "model", "dense", "dense", "model"]
    assert found == [{"dense": 2, "model": 3}, {"model": 4, "dense": 5}, {"dense": 6, "model": 7}]


def test_a_run_reads_once_and_writes_token_by_token(tiny, family):
    seen, model = [], tiny(family)
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ticks = itertools.count(0, 10)
    ids = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    assert read_and_write(model, ids, 3, clock=lambda: next(ticks)) == (10, 10)
    assert seen == [(2, 12), (2, 1), (2, 1), (2, 1)]


def test_it_writes_what_greedy_generation_writes(tiny):
    model, seen = tiny("llama_gqa"), []
    ids = torch.randint(3, 64, (1, 12), generator=torch.Generator().manual_seed(0))
    expected = model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, eos_token_id=None)
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    read_and_write(model, ids, 4)
    assert torch.equal(torch.cat(seen[:5], 1), expected)


def test_flops_of_a_linear_model():
    model, x = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8, bias=False)), torch.randn(5, 16)
    found = work_of(lambda: model(x))
    assert found.flops == 2 * 5 * (16 * 32 + 32 * 8)
    assert found.ops == 3
    reads = (16 * 32 + 32 + 5 * 16) + 5 * 32 + (32 * 8 + 5 * 32)
    assert found.bytes == 4 * (reads + 5 * 32 + 5 * 32 + 5 * 8)


def test_a_batch_of_sequences_costs_no_more_calls_than_their_rows():
    """A product of (batch, length, width) is one call and reads as much as one of (batch * length, width)."""
    layer, x = nn.Linear(16, 8, bias=False), torch.randn(3, 5, 16)
    assert work_of(lambda: layer(x)) == work_of(lambda: layer(x.view(15, 16)))
    assert work_of(lambda: layer(x)).ops == 1


def test_flops_of_attention_and_of_a_look_up():
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    assert work_of(lambda: F.scaled_dot_product_attention(q, k, k)).flops == 4 * 6 * 5 * 7 * 8
    table = nn.Embedding(1000, 4)
    assert work_of(lambda: table(torch.tensor([1, 2]))).bytes == 2 * 2 * 4 * 4 + 2 * 8  # rows, ids


def test_flops_of_a_model_by_hand(tiny):
    """Llama: 2 per weight and token, attention 4 * length^2 * width per block, the head for one position."""
    model = tiny("llama")
    weights = sum(p.numel() for n, p in model.named_parameters() if "proj" in n)
    ids = torch.randint(3, 64, (1, 12))
    found = work_of(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1))
    assert found.flops == 2 * 12 * weights + 2 * 4 * 12 * 12 * 32 + 2 * 32 * 64


def test_what_is_shared_is_resident_once(tiny):
    tied, untied = tiny("llama_tied"), tiny("llama")
    assert resident_bytes(untied) - resident_bytes(tied) == 4 * 64 * 32


def pages():
    """64 MB of the system's own: a tensor's may come from what the process freed, which it still holds."""
    held = mmap.mmap(-1, 2**26)
    held.write(bytes(2**26 - 1) + b"1")
    return held


def test_the_peak_holds_what_was_there():
    held = []
    before = peak_bytes(lambda: None, torch.device("cpu"))
    after = peak_bytes(lambda: held.append(pages()), torch.device("cpu"))
    assert after - before > 2**25 or before == 0  # 64 MB; some systems tell nothing


def test_a_stage_keeps_the_peak_that_came_before_a_stage_inside_it():
    with machine.measured() as outer:
        pages().close()  # gone before the inner one starts
        with machine.measured() as inner:
            pass
    assert outer.peak_bytes - inner.peak_bytes > 2**25 or inner.peak_bytes == 0  # some systems tell nothing


def test_the_limit_that_binds():
    roof = Roof(flops=1e9, bytes=1e8, launch=1e-6)
    assert roof.badge(Work(flops=10**9, ops=10, bytes=10**6)) == "compute"
    assert roof.badge(Work(flops=10**6, ops=10, bytes=10**8)) == "memory"
    assert roof.badge(Work(flops=10**6, ops=10**6, bytes=10**6)) == "launch"
    assert roof.seconds(Work(2 * 10**9, 3, 10**8)) == {"compute": 2, "memory": 1, "launch": 3e-6}


def test_the_roof_is_measured_once_per_size(monkeypatch):
    monkeypatch.setitem(efficiency.SIDE, "cpu", 32)
    monkeypatch.setattr(efficiency, "MOST", 2**21)
    efficiency._roof.cache_clear()
    cpu = torch.device("cpu")
    found = efficiency.roof_of(cpu, torch.float32, 10)
    assert min(found.to_json().values()) > 0
    assert efficiency.roof_of(cpu, torch.float32, 2**20) is found
    assert efficiency.roof_of(cpu, torch.float32, 2**40) is not found
    efficiency._roof.cache_clear()


def zone(folder, name, energy, most=1_000_000_000):
    (folder / name).mkdir(parents=True)
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")


def test_joules_of_all_packages_but_not_of_their_parts(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, name, 5_000_000)
    energy = Energy("cpu", tmp_path)
    before = energy.read()
    assert before == [5.0, 5.0]
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("7500000")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1000000")  # began anew at 1000 J
    assert energy.since(before) == pytest.approx(2.5 + 996)


def test_a_platform_counter_does_not_count_its_packages_again(tmp_path):
    for name, called in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "psys")):
        zone(tmp_path, name, 5_000_000)
        (tmp_path / name / "name").write_text(f"{called}\n")
    assert Energy("cpu", tmp_path).read() == [5.0]


def test_no_counter_is_a_blank_with_a_reason(tmp_path):
    energy = Energy("cpu", tmp_path / "none")
    assert (energy.read(), energy.since(None), energy.reason) == (None, None, "no RAPL counter here")
    (tmp_path / "intel-rapl:0").mkdir()
    assert Energy("cpu", tmp_path).reason == "its counters may not be read"
    assert Energy("cuda").reason


def test_what_others_do_is_all_work_less_our_own(monkeypatch):
    told = iter([(0.0, 100.0, 7.0), (10.0, 130.0, 12.0)])  # clock, all processors, this process
    monkeypatch.setattr(machine, "_processor_seconds", lambda: next(told))
    assert machine.Others().busy() == (30 - 5) / 10


def test_counters_that_stand_still_tell_nothing(monkeypatch):
    told = iter([(0.0, 0.0, 7.0), (10.0, 0.0, 12.0), None])
    monkeypatch.setattr(machine, "_processor_seconds", lambda: next(told))
    others = machine.Others()
    assert (others.busy(), others.busy()) == (None, None)


def test_the_hardware_changes_with_the_threads():
    before, threads = machine.hardware("cpu"), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert machine.hardware("cpu") == before | {"threads": threads + 1}
    finally:
        torch.set_num_threads(threads)
    assert before["gpu"] is None
    assert isinstance(before["processor"], str)
