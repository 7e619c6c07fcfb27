"""The same numbers as NeuroBench on the same network and images, and where the two differ, why."""

import pytest
import torch
from conftest import awake, small_families
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from zoo.metrics import OperationCounter, SpikeCounter, connection_sparsity, footprint
from zoo.neurons import SpikingNeuron, create_neuron

pytest.importorskip("neurobench", reason="needs NeuroBench, of the extra 'peers'")

KEYS = ("Effective_ACs", "Effective_MACs", "Dense")


def neurobench(model, images, batch_size):
    """What NeuroBench says, under its names."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(model)
    wrapped.add_activation_module(SpikingNeuron)
    static, workload = [Footprint, ConnectionSparsity, ParameterCount], [SynapticOperations, ActivationSparsity]
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), batch_size)
    with torch.no_grad():
        found = Benchmark(wrapped, loader, [], [], [static, workload]).run(quiet=True)
    operations = found["SynapticOperations"]
    assert isinstance(operations, dict), "it prints an error and goes on with 0.0"
    return found | operations


def ours(model, images, batch_size):
    with torch.no_grad(), SpikeCounter(model) as spikes, OperationCounter(model) as operations:
        for batch in images.split(batch_size):
            model(batch)
    return spikes.summary() | operations.summary()


def network(name, **kwargs):
    """A network in float64, where NeuroBench's sums are exact, whose layers all spike, some of its weights 0."""
    model = awake(zoo.create_model(name, timesteps=2, **kwargs).double())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight *= torch.rand_like(module.weight) < 0.9
    return model


@pytest.mark.parametrize(
    ("name", "connect"),  # of AND, convolutions receive products of spikes
    [*((name, {}) for name in small_families()), ("sew_resnet18_w16", {"connect": "AND"})],
)
def test_every_family_has_neurobenchs_numbers(name, connect):
    model, images = network(name, **connect), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected, counts = neurobench(model, images, 4), ours(model, images, 4)
    for key in KEYS:
        assert counts[key] == expected[key] > 0, key
    assert 0 < counts["activation_sparsity"] == expected["ActivationSparsity"] < 1
    assert footprint(model) == expected["Footprint"]
    assert 0 < round(connection_sparsity(model), 4) == expected["ConnectionSparsity"]
    assert sum(p.numel() for p in model.parameters()) == expected["ParameterCount"]
    # It sees no product of activations, ours are beside its numbers.
    transformer = not any(word in name for word in ("resnet", "vgg", "plif"))
    assert (counts["products"]["Dense"] > 0) == (transformer or bool(connect))
    if transformer:
        assert counts["products"]["Effective_ACs"] > 0


def test_in_float32_it_rounds():
    model = nn.Sequential(nn.Linear(1024, 1025, bias=False), create_neuron("if", 1))
    images = torch.ones(17, 1024)
    images[0, 0] = 0
    exact = (17 * 1024 - 1) * 1025  # odd and above 2^24, so no float32
    assert ours(model, images, 17)["Effective_ACs"] == exact / 17
    assert neurobench(model, images, 17)["Effective_ACs"] != exact / 17
    assert neurobench(model.double(), images.double(), 17)["Effective_ACs"] == exact / 17


def test_its_labels_depend_on_the_size_of_batches():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), create_neuron("if", 1))
    images = torch.tensor([[1.0, 0.0], [2.0, 1.0]])  # the first is binary
    together = {"Effective_ACs": 0.0, "Effective_MACs": 4.5, "Dense": 6.0}
    for batch_size in (1, 2):
        counts = ours(model, images, batch_size)
        assert {key: counts[key] for key in KEYS} == together
    assert {key: neurobench(model, images, 2)[key] for key in KEYS} == together
    assert {key: neurobench(model, images, 1)[key] for key in KEYS} == together | {
        "Effective_ACs": 1.5,
        "Effective_MACs": 3.0,
    }


def test_its_footprint_holds_what_only_training_needs():
    scaling = {"name": "channel", "every": 3}  # keeps a factor for each layer
    scaled, plain = (zoo.create_model("sresnet19_w16", scaling=s, timesteps=1) for s in (scaling, None))
    images = torch.randn(1, 3, 32, 32)
    assert scaled.state_dict().keys() == plain.state_dict().keys()
    assert footprint(scaled) == footprint(plain) == neurobench(plain, images, 1)["Footprint"]
    assert neurobench(scaled, images, 1)["Footprint"] > footprint(plain)
