"""What is counted, by hand and by brute force; one pass in bounded memory; what cannot be counted."""

import itertools

import numpy as np
import pytest
import torch
from conftest import accuracy, awake, small_families, tiny
from torch import nn

import zoo
from zoo import ZooError
from zoo.layers import Hadamard, MatMul
from zoo.metrics import OperationCounter, SpikeCounter, connection_sparsity, energy, evaluate, footprint
from zoo.neurons import create_neuron
from zoo.result import Costs, accuracy_result, check

NEURON = {"name": "if", "reset": "hard"}
KEYS = ("Effective_ACs", "Effective_MACs", "Dense")


class TwoLayers(nn.Module):
    """A convolution, run once for all steps, neurons, a linear layer."""

    def __init__(self, timesteps=2):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 1, 2, bias=False), nn.Linear(4, 2)
        self.lif = create_neuron(NEURON, timesteps)
        self.conv.weight.data = torch.tensor([[[[1.0, 0.0], [2.0, 3.0]]]])
        self.fc.weight.data = torch.tensor([[1.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 0.0]])

    def forward(self, x):
        steps = self.fc(input=self.lif(self.conv(x), repeat=True).flatten(1))
        return steps.unflatten(0, (self.lif.timesteps, -1)).mean(0)


def measure(model, *batches):
    with torch.no_grad(), SpikeCounter(model) as spikes, OperationCounter(model) as operations:
        for batch in batches:
            model(batch)
    return spikes.summary() | operations.summary()


def test_a_network_that_was_compiled_before_is_counted_all_the_same():
    model, x = tiny().eval(), torch.rand(2, 3, 16, 16)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    assert measure(compiled, x) == measure(model, x)


@pytest.mark.parametrize("encoding", ["rate", "latency"])
def test_what_reads_brightness_is_given_no_other(encoding):
    """Whatever mean and std are said, and inside what PyTorch puts a network into, too."""
    model = awake(zoo.create_model("svgg11_w8", timesteps=3, encoding=encoding))
    x, y = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.arange(6)
    expected = evaluate(model, x, y)
    assert evaluate(model, x, y, (0.5,) * 3, (0.2,) * 3) == expected
    assert evaluate(nn.DataParallel(model), x, y, np.array([0.5] * 3), np.array([0.2] * 3)) == expected


def test_evaluation_leaves_each_layer_in_its_mode():
    model = tiny().train()
    model.bn1.eval()
    x, y, numbers = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8), torch.zeros(2).long(), (0.5,) * 3
    evaluate(model, x, y, numbers, numbers)
    assert (model.training, model.bn1.training, model.fc.training) == (True, False, True)
    with pytest.raises(ZooError, match="expected images"):
        evaluate(model, x[:, :2], y, numbers[:2], numbers[:2])
    assert (model.training, model.bn1.training) == (True, False)


def test_two_layers_by_hand():
    # The pixel 0.5, in a corner, meets one weight of the convolution, 1. The pixel 1, in the middle, meets four, of
    # which one is 0. So the currents are 0.5 + 3, 2, 0, 1, and three of four neurons spike in both steps. Behind them,
    # their spikes meet 2, 1 and 0 weights that are not 0, of 2.
    image = torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])[None, None]
    counts = measure(TwoLayers(), image)
    assert counts == {
        "spikes_per_image": 6.0,
        "spikes_per_layer": {"lif": 6.0},
        "spikes_per_step": [3.0, 3.0],
        "firing_rates": {"lif": 0.75},
        "activation_sparsity": 0.25,
        "membrane_updates": 8.0,
        "Effective_ACs": 6.0,
        "Effective_MACs": 4.0,
        "Dense": 16.0 + 2 * 8.0,
        "products": dict.fromkeys(KEYS, 0.0),
        "stem": {"Effective_ACs": 0.0, "Effective_MACs": 4.0, "Dense": 16.0},
    }
    assert measure(TwoLayers(), torch.cat([image, torch.zeros_like(image)]))["Effective_MACs"] == 2.0  # per image
    model = TwoLayers()
    assert footprint(model) == 4 * (4 + 8 + 2)
    assert connection_sparsity(model) == 4 / 12


def test_of_one_time_step_the_stem_ends_at_the_first_neurons():
    stem = measure(TwoLayers(timesteps=1), torch.ones(1, 1, 3, 3))["stem"]
    assert stem == {"Effective_ACs": 12.0, "Effective_MACs": 0.0, "Dense": 16.0}


@pytest.mark.parametrize("values", [(0.5, 1.0), (1.0, 0.5)])
def test_a_layer_that_once_multiplies_multiplies_on_maps_of_every_size(values):
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), create_neuron(NEURON, 2))
    with torch.no_grad(), OperationCounter(model) as counter:
        for side, value in zip((2, 3), values, strict=True):
            model(torch.full((2, 1, side, side), value))
    assert counter.layers() == {"0": (2 * (4 + 9), 2 * (4 + 9), False)}


def test_energy_by_hand():
    counts = {"Effective_ACs": 6e6, "Effective_MACs": 4e6, "membrane_updates": 8e6}
    counts["products"] = {"Effective_ACs": 2e6, "Effective_MACs": 0.0, "Dense": 9e6}
    assert energy(counts) == pytest.approx({"acs": 0.9 * 8, "macs": 4.6 * 4, "total": 25.6})
    assert energy(counts | {"Effective_ACs": None}) is None
    assert energy(accuracy()) is None  # an old result


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2), "bias": True},
    {"kernel_size": 3, "dilation": 2, "padding": "same"},
    {"kernel_size": 3, "groups": 2, "stride": 2},
    {"kernel_size": 3, "groups": 4, "padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("values", [(0.0, 1.0), (-1.0, 0.0, 1.0), (0.0, 0.5, 2.0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_by_brute_force(convolution, values, layout):
    conv = nn.Conv2d(4, 8, **{"bias": False} | convolution)
    conv.weight.data *= torch.rand_like(conv.weight) < 0.6
    model = nn.Sequential(conv, create_neuron(NEURON, 2))
    draw = lambda n: torch.tensor(values)[torch.randint(len(values), (n, 4, 7, 9))].to(memory_format=layout)  # noqa: E731
    batches = [draw(6), draw(2)]
    with torch.inference_mode(), OperationCounter(model) as counter:
        for batch in batches:
            model(batch)
    rows = torch.cat(batches)
    counting = nn.Conv2d(4, 8, **convolution | {"bias": False}).requires_grad_(False)
    counting.weight.copy_(conv.weight != 0)
    effective = counting((rows != 0).float()).double().sum()
    counting.weight.fill_(1)
    dense = counting(torch.ones_like(rows)).double().sum()
    assert counter.layers() == {"0": (int(effective), int(dense), 2.0 not in values)}


@pytest.mark.parametrize("top", [1, 2])
def test_products_by_brute_force(top):
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.mask, self.lif = MatMul(), Hadamard(), create_neuron(NEURON, 1)

        def forward(self, a, b, c):
            return self.mask(self.lif(self.matrix(a, b)), c)

    shapes = {(2, 3, 4, 5): 3, (2, 3, 5, 6): top, (4, 1): 8}
    a, b, c = (torch.randint(high + 1, shape).float() for shape, high in shapes.items())
    model = Products()
    spikes = model.lif(a @ b)
    with OperationCounter(model) as counter:
        model(a, b, c)
    places = itertools.product(range(4), range(5), range(6))
    pairs = sum(int(((a[..., i, j] != 0) & (b[..., j, k] != 0)).sum()) for i, j, k in places)
    assert counter.products() == {
        "matrix": (pairs, 2 * 3 * 4 * 5 * 6, top == 1),  # one factor is spikes: to accumulate will do
        "mask": (int((spikes * c != 0).sum()), spikes.numel(), True),
    }


def test_one_pass_whatever_the_batches():
    model = tiny().double()  # in float32 another size of batches may round a spike away
    images, labels = torch.randint(256, (7, 3, 16, 16), dtype=torch.uint8), torch.randint(10, (7,))
    data = (images, labels, (0.5,) * 3, (0.25,) * 3)
    scores = [evaluate(model, *data, batch_size=n) for n in (3, 7)]
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model.eval()((images.double() / 255 - 0.5) / 0.25), labels)
    assert [score["loss"] for score in scores] == pytest.approx([float(loss)] * 2, rel=1e-5)
    for key in Costs.model_fields:
        assert scores[0][key] == scores[1][key], key
    assert scores[0]["Effective_ACs"] > 0
    assert scores[0]["energy_uj"] == energy(scores[0])["total"] > 0
    assert scores[0]["footprint_bytes"] == footprint(model)
    assert scores[0]["activation_sparsity"] == 1 - scores[0]["spikes_per_image"] / scores[0]["membrane_updates"]


def test_what_is_drawn_at_random_is_drawn_again():
    model = tiny(encoding="rate")
    data = (torch.randint(0, 256, (5, 3, 8, 8)).to(torch.uint8), torch.randint(0, 10, (5,)), (0.0,) * 3, (1.0,) * 3)
    state = torch.get_rng_state()
    scores = [evaluate(model, *data) for _ in range(2)]
    assert scores[0] == scores[1]
    assert scores[0]["spikes_per_image"] > 0
    assert torch.equal(torch.get_rng_state(), state)


ONE_IMAGE = (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), (0.5,) * 3, (1.0,) * 3)
BACKENDS = torch.backends
SWITCHES = [BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.matmul]


@pytest.mark.parametrize("how", ["", "high", "tf32", "all"])
def test_float32_is_not_rounded(how):
    """What mostly a GPU would do, so of the setting alone; older and newer switches of PyTorch."""

    def switches():
        return [switch.fp32_precision for switch in SWITCHES]

    model, seen, kept = tiny(), [], (switches(), BACKENDS.fp32_precision, torch.get_float32_matmul_precision())
    model.conv1.register_forward_hook(lambda *_: seen.append(switches()))
    try:
        if how == "high":
            torch.set_float32_matmul_precision(how)
        elif how == "tf32":
            BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cuda.matmul.fp32_precision = "tf32"
        elif how == "all":
            BACKENDS.fp32_precision = "tf32"
        before = switches()
        evaluate(model, *ONE_IMAGE)
        assert switches() == before
    finally:
        BACKENDS.fp32_precision = kept[1]
        torch.set_float32_matmul_precision(kept[2])
        for switch, value in zip(SWITCHES, kept[0], strict=True):
            switch.fp32_precision = value
    assert seen == [["ieee"] * len(SWITCHES)]


def test_of_equal_logits_the_first_class_is_the_higher():
    model = zoo.create_model("svgg11_w8", timesteps=1, num_classes=10)
    nn.init.zeros_(model.get_classifier().weight)
    model.get_classifier().bias.data = torch.tensor([0.0, 1, 0, 1, 1, 0, 1, 0, 1, 1])
    images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    labels = torch.tensor([1, 3, 4, 6, 8, 9, 9, 9, 9, 9])
    scores = evaluate(model, images, labels, (0.5,) * 3, (0.5,) * 3)
    assert (scores["top1"], scores["top5"]) == (10, 50)


def test_what_cannot_be_measured_ends_in_one_error():
    model, mean = tiny(), (0.5,) * 3
    none = torch.zeros(0, 3, 16, 16, dtype=torch.uint8), torch.zeros(0, dtype=torch.long)
    with pytest.raises(ZooError, match="no images"):
        evaluate(model, *none, mean, mean)
    one = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ZooError, match="Sequential has no layer of spiking neurons"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), *one, mean, mean)
    with OperationCounter(model) as operations, pytest.raises(ZooError, match="call the network"):
        operations.summary()
    with SpikeCounter(model) as spikes, pytest.raises(ZooError, match="no spikes were counted"):
        spikes.summary()
    with torch.no_grad(), SpikeCounter(model) as spikes:
        model.forward_features(torch.rand(1, 3, 16, 16))
    with pytest.raises(ZooError, match="call the network"):
        spikes.summary()


def test_a_neuron_whose_spikes_are_not_binary_is_not_counted():
    """Sums would be wrong: -1 and 1 cancel, and 3 is one event."""

    class Ternary(zoo.SpikingNeuron):
        def step(self, x_t, state=None):
            return x_t.sign(), state

    layer = nn.Sequential(Ternary(2))
    with SpikeCounter(layer) as spikes:
        layer(torch.tensor([[0.0], [1.0]]))
        assert spikes.summary()["spikes_per_image"] == 0.5
    with SpikeCounter(layer), pytest.raises(ZooError, match="gives other values than 0 and 1"):
        layer(torch.tensor([[-1.0], [1.0]]))


def test_images_are_pixels_or_normalised_in_any_precision():
    """Tensors or arrays; mean and deviation are the network's own where nobody says others."""
    model = awake(zoo.create_model("sresnet19_w16", timesteps=1)).double()
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    ready = (pixels / 255 - torch.tensor(model.pretrained_cfg["mean"])[:, None, None]).double()
    ready /= torch.tensor(model.pretrained_cfg["std"])[:, None, None]
    labels = torch.arange(4)
    found = [evaluate(model, x, labels)["loss"] for x in (pixels, ready, ready.float(), pixels.numpy(), pixels.int())]
    found += [evaluate(model, ready.numpy(), labels.numpy().astype(kind))["loss"] for kind in ("uint16", ">i4")]
    assert found == pytest.approx([found[0]] * 7, rel=1e-5)
    for wrong in (pixels / 255, pixels.float()):
        with pytest.warns(UserWarning, match="taken as normalised, and these lie in"):
            evaluate(model, wrong, labels)


def test_labels_that_do_not_fit_are_named():
    model, images = tiny(), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    for labels in (torch.zeros(1, dtype=torch.long), torch.zeros(2), torch.zeros(2, 1, dtype=torch.long)):
        with pytest.raises(ZooError, match=r"2 images need integer labels \[2\], not"):
            evaluate(model, images, labels, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ZooError, match="TwoLayers knows no mean and std"):
        evaluate(TwoLayers(), images, torch.zeros(2, dtype=torch.long))
    for label, words in ((10, r"a label is 10, and the network has 10 classes"), (-100, "one is -100")):
        with pytest.raises(ZooError, match=words):
            evaluate(model, images, torch.tensor([0, label]), (0.5,) * 3, (0.5,) * 3)
    for batch_size in (0, -1):
        with pytest.raises(ZooError, match=f"batch_size must be 1 or more, not {batch_size}"):
            evaluate(model, images, torch.zeros(2).long(), (0.5,) * 3, (0.5,) * 3, batch_size=batch_size)
    with pytest.raises(ZooError, match=r"no classes \(num_classes 0\)"):
        evaluate(nn.DataParallel(tiny(num_classes=0)), images, torch.zeros(2).long(), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("timesteps", [2, 3])
def test_frames_are_taken_as_they_are_in_any_type(timesteps):
    """Though three time steps look like three channels."""
    model = awake(zoo.create_model("sresnet19_w16", timesteps=timesteps, encoding="frames"))
    frames = torch.randint(2, (4, timesteps, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(4)
    backwards = np.ascontiguousarray(frames.numpy()[..., ::-1])[..., ::-1]  # strides that PyTorch has not
    found = [evaluate(model, x, labels) for x in (frames, frames.float(), backwards)]
    assert found[0] == found[1] == found[2]
    assert found[0]["loss"] == pytest.approx(
        nn.functional.cross_entropy(model(frames.float()), labels).item(), rel=1e-5
    )


@pytest.mark.parametrize("name", small_families())
def test_every_layer_is_called_as_a_module_with_its_input_alone(name):
    """Or hooks, ours and NeuroBench's, would not see it, or would see more than they know."""
    model, calls = zoo.create_model(name, timesteps=2).eval(), []
    with OperationCounter(model) as counter, torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs)))
        model(torch.randn(1, 3, 32, 32))
    assert set(calls) == {1}
    assert counter.summary()["Dense"] > 0


class Bypassed(TwoLayers):
    """Uses the weights of a layer without calling it."""

    def forward(self, x):
        spikes = self.lif(self.conv(x), repeat=True).flatten(1)
        return nn.functional.linear(spikes, self.fc.weight).unflatten(0, (2, -1)).mean(0)


def test_what_no_counter_sees_is_null_and_said():
    with pytest.warns(UserWarning, match="layer 'fc'"):
        counts = measure(Bypassed(), torch.ones(1, 1, 3, 3))
    assert [counts[key] for key in (*KEYS, "products", "stem")] == [None] * 5
    assert energy(counts) is None
    check(accuracy(**{key: counts[key] for key in Costs.model_fields if key in counts}), "x.json")


def test_a_record_holds_what_evaluate_counts():
    model, data = zoo.create_model("sresnet19_w16"), zoo.load_dataset("digits")
    scores = evaluate(model, data.test_images[:4], data.test_labels[:4], data.mean, data.std)
    unknown = dict.fromkeys(("comparison", "epochs", "seed", "test_reads"))
    record = accuracy_result(model, scores, data, tag="x", split="test", weights_sha256="0" * 64, **unknown)
    assert check(record, "x.json").keys() >= Costs.model_fields.keys()
