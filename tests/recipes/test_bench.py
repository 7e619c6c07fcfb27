"""python -m recipes.bench: what is timed, counted and written, and that it says no to what it cannot time."""

from __future__ import annotations

import functools
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import run_module, tiny
from torch import nn

from recipes.bench import IdentityNeuron, alternate, bench, main, peak_bytes, saved_bytes, without_neurons
from recipes.commands import parse_bench
from zoo.errors import ZooError
from zoo.neurons.lif import LIF

SMALL = ["--batch", "2", "--timesteps", "2", "--warmup", "1", "--device", "cpu", "--runs"]


def test_forms_of_gradient_scaling_are_timed_beside_the_network(capsys):
    words = ["step", "--model", "sresnet19_w16", *SMALL, "1", "--scaling"]
    main([*words, "{name: channel, rank: 1, every: 3}", "causal_trace"])
    out = capsys.readouterr().out
    assert "{name: channel, rank: 1, every: 3} " in out
    assert "causal_trace " in out
    with pytest.raises(ZooError, match="unknown scaling 'nosuch'"):
        main([*words, "nosuch"])


def test_runs_take_turns_and_one_of_several_steps_is_timed_as_one_step(monkeypatch):
    order = []
    monkeypatch.setattr("recipes.bench._time", lambda step, _: step() or 6.0)
    steps = {name: functools.partial(order.append, name) for name in "ab"}
    found = alternate(steps, runs=2, warmup=1, device=torch.device("cpu"), length=3)
    assert (found["a"]["ms"], order) == ([2.0, 2.0], [*"ab", *(3 * "aaabbb")])
    assert found["a"]["first_step_ms"] == 6.0


def test_command_writes_a_measurement(tmp_path):
    file = tmp_path / "speed.json"
    arms = ["--against", "identity", "reference", "plain", "--json", str(file)]
    done = run_module("recipes.bench", "step", "--model", "sresnet19_w16_gs", *SMALL, "3", *arms)
    assert done.returncode == 0, done.stderr
    assert "identity floor" in done.stdout
    result = json.loads(file.read_text())
    assert result["kind"] == "speed"
    assert result["kernel"] in ("cpp", "reference")
    assert result["command"].startswith("python -m recipes.bench step --model sresnet19_w16_gs")
    assert result["machine"]["cpu"]
    for arm in [result, result["reference"], result["plain"], *result["identity"]["all"].values()]:
        assert 0 < arm["p10_ms"] <= arm["median_ms"] <= arm["p90_ms"]
        assert arm["median_ms"] == pytest.approx(sorted(arm["ms"])[1], abs=1e-3)
        assert arm["images_per_second"] == pytest.approx(2e3 / arm["median_ms"])
        assert arm["peak_bytes"] > arm["saved_bytes_per_image"] > 1e5
    assert set(result["identity"]["all"]) == {"identity contiguous", "identity channels_last"}
    assert result["identity"]["median_ms"] == min(a["median_ms"] for a in result["identity"]["all"].values())
    assert result["times_identity"] == pytest.approx(result["median_ms"] / result["identity"]["median_ms"])
    if result["kernel"] == "cpp":
        assert result["saved_bytes_per_image"] < result["reference"]["saved_bytes_per_image"]


def test_inference_and_checkpointing():
    def timed(mode, model, *words):
        return bench(parse_bench([mode, "--model", model, *SMALL, "1", *words]))

    assert "saved_bytes_per_image" not in timed("inference", "sresnet19_w16")
    assert timed("inference", "svgg9_w16", "--img-size", "48")["median_ms"] > 0  # built for that size
    every, few = (timed("step", "sresnet19_w16_gs", *on, "--against", "plain") for on in ([], ["--grad-checkpointing"]))
    for all_kept, some in ((every, few), (every["plain"], few["plain"])):
        assert some["saved_bytes_per_image"] < 0.5 * all_kept["saved_bytes_per_image"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("step --model sresnet19_w16 --kernel fused --timesteps 40", "40"),
        ("step --model sresnet19_w16 --device cuda", "GPU"),
        ("step --model sresnet19_w16 --json .", r"cannot write \..*directory"),
    ],
)
def test_bad_requests_are_refused(arguments, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ZooError, match=words):
        main(arguments.split())


def test_the_floor_has_no_neurons_and_no_rule():
    model = tiny(scaling="causal_trace")
    floor = without_neurons(model)
    assert any(isinstance(m, LIF) for m in model.modules())
    assert not any(isinstance(m, LIF) for m in floor.modules())
    assert sum(isinstance(m, IdentityNeuron) for m in floor.modules()) == 8
    assert {n: p.shape for n, p in floor.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    floor(torch.randn(2, 3, 16, 16)).sum().backward()  # without a rule nobody asks for post-synaptic spikes


def test_quantiles_are_of_the_runs_after_the_warm_up(monkeypatch):
    seconds = [9.0, 4.0, *(ms / 1e3 for ms in (4, 0, 10, 7, 1, 9, 2, 6, 3, 8, 5))]
    clock = itertools.chain.from_iterable((0.0, end) for end in seconds)
    monkeypatch.setattr("recipes.bench.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = alternate({"a": lambda: None}, runs=11, warmup=1, device=torch.device("cpu"))["a"]
    numbers = {"p10_ms": 1.0, "median_ms": 5.0, "p90_ms": 9.0, "first_step_ms": 9e3}
    assert {key: found[key] for key in numbers} == pytest.approx(numbers)


def test_saved_bytes_count_each_memory_once_and_no_weights():
    linear = nn.Linear(10, 10)
    x = torch.randn(5, 10, requires_grad=True)

    def forward():
        y = linear(x)  # saves x
        return (y.exp() * x).sum()  # saves exp(y), once for both, and x again

    assert saved_bytes(forward, list(linear.parameters())) == 2 * 5 * 10 * 4


def test_peak_bytes():
    def step():
        a = torch.ones(1000, 1000)
        b = a + 1  # two at once, then three
        c = b @ a
        del a, b
        return (c + 1).sum()  # two again

    assert peak_bytes(step, torch.device("cpu")) == pytest.approx(3 * 4e6, rel=0.1)


@pytest.mark.parametrize("neuron", ["lif", {"name": "lif", "reset": "soft", "decay": 0.75, "decay_input": True}])
@pytest.mark.parametrize("surrogate", ["triangle", "rectangle", "arctan", "sigmoid"])
def test_spikingjelly_computes_the_same(neuron, surrogate):
    pytest.importorskip("spikingjelly")
    from recipes.peers import SpikingJellyResNet, check_equal

    model = tiny(neuron=neuron, surrogate=surrogate)
    assert check_equal(model, SpikingJellyResNet(model), (3, 16, 16)) < 1e-9
    other = SpikingJellyResNet(model)
    other.fc.bias.data += 1e-6
    with pytest.raises(ZooError, match="differ"):
        check_equal(model, other, (3, 16, 16))
