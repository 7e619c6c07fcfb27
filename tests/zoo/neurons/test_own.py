"""Neurons and surrogates of a user's own: they run like ours, and no kernel computes another in their place."""

import warnings

import pytest
import torch
from conftest import tiny
from timm.optim import param_groups_weight_decay
from torch import nn

import zoo
from zoo.errors import ZooError
from zoo.kernels import _announce
from zoo.neurons import LIF, PLIF
from zoo.neurons.surrogate import triangle

pytestmark = pytest.mark.usefixtures("registered_here_only")


class Leaky(zoo.SpikingNeuron):
    """The dynamics of LIF, in words of its own."""

    spec_keys = ("threshold", "leak")

    def __init__(self, timesteps=4, *, leak=0.5, **others):
        super().__init__(timesteps, **others)
        self.leak = leak

    def step(self, x_t, state=None):
        u = x_t if state is None else state * (1 - self.leak) + x_t
        s = self.surrogate.spike(u - self.threshold)
        return s, u * (1 - s.detach())


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_membranes_are_float32_at_least(kernel):
    """Spikes are those of the built-in neurons on the same bfloat16 currents, and in their type."""
    currents = torch.randn(16 * 8, 64).bfloat16()
    mine, ours = Leaky(16, leak=0.1), LIF(16, decay=0.9, kernel=kernel)
    assert torch.equal(mine(currents), ours(currents))
    assert mine(currents).dtype == torch.bfloat16


def gradients(model, x):
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters()]


def test_a_neuron_of_ones_own_equals_lif_in_training():
    """With gradient scaling, learning and streaming: the same dynamics give the same network."""
    assert zoo.register_neuron("leaky")(Leaky) is not None
    assert "leaky" in zoo.list_neurons()
    zoo.register_neuron("bare")(type("Bare", (Leaky,), {"spec_keys": ("leak",)}))
    zoo.create_model("spikformer_2_64", neuron="bare")  # whose attention sets a threshold that specs may not
    x, scaling = torch.randn(3, 3, 16, 16), {"name": "causal_trace", "alpha": 0.5}
    found = []
    for neuron in ({"name": "lif", "decay": 0.75}, {"name": "leaky", "leak": 0.25}):
        torch.manual_seed(1)
        model = tiny(neuron=neuron, scaling=scaling, kernel="reference")
        found.append(gradients(model, x))
        assert model.model_args["neuron"] == neuron
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ZooError, match="unknown key of neuron leaky 'decay'"):
        tiny(neuron={"name": "leaky", "decay": 0.5})
    with pytest.raises(ZooError, match="no fused kernel has the dynamics of Leaky"):
        tiny(neuron="leaky", kernel="fused")(x)


class Passing:
    """A step for classes that mix it in."""

    def step(self, x_t, state=None):
        return self.surrogate.spike(x_t - self.threshold), None


def test_no_fused_kernel_runs_another_step():
    """Whichever way a subclass of LIF gets a step of its own."""

    class Mixed(Passing, LIF):
        pass

    class Given(LIF):
        step = Passing.step

    class Below(Given):
        """It adds nothing."""

    class Same(LIF):
        """LIF under another name."""

    x = torch.randn(8, 3, 4, 4)
    for cls in (Mixed, Given, Below):
        assert cls(4).kernel_for("cpu", torch.float32) == "reference"
        assert torch.equal(cls(4)(x), (x >= 1).float())
    assert Same(4).kernel_for("cpu", torch.float32) == LIF(4).kernel_for("cpu", torch.float32)


def test_no_fused_kernel_takes_a_decay_for_each_channel():
    class Channels(PLIF):
        """PLIF whose time constants are of channels."""

        def __init__(self, timesteps=4, **others):
            super().__init__(timesteps, **others)
            self.w = nn.Parameter(torch.linspace(-2, 2, 3).view(3, 1, 1))

    x, neuron = torch.randn(8, 3, 4, 4), Channels(4)
    assert neuron.kernel_for("cuda", torch.float32) == neuron.kernel_for("cpu", torch.float32) == "reference"
    spikes = neuron(x)
    spikes.sum().backward()
    assert neuron.w.grad is not None
    for channel, w in enumerate(neuron.w.detach().flatten()):
        alone = PLIF(4)
        alone.w.data = w
        assert torch.equal(spikes[:, channel], alone(x[:, channel]))


class Learnt(Leaky):
    """A threshold for each channel, a matrix that decays."""

    def build(self, shape):
        self.threshold = nn.Parameter(torch.full(shape, self.threshold))
        self.matrix = nn.Parameter(torch.ones(2, 2))

    def no_weight_decay(self):
        return {"threshold"}


def test_a_neuron_learns_its_channels_when_its_network_is_built(tmp_path):
    """Behind maps and vectors, whatever encodes the images, in a checkpoint, and apart from weight decay."""
    zoo.register_neuron("learnt")(Learnt)
    model = zoo.create_model("sdt_2_64", neuron="learnt", encoding="frames", timesteps=2)
    assert model.lif1.threshold.shape == (8, 1, 1)
    assert model.final_lif.threshold.shape == (64,)
    groups = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert id(model.lif1.matrix) in decayed
    assert id(model.lif1.threshold) not in decayed
    nn.init.constant_(model.lif1.threshold, 0.75)
    zoo.save_checkpoint(tmp_path, model, tag="x", data_cfg={})
    assert zoo.load(tmp_path).lif1.threshold.unique().tolist() == [0.75]


@pytest.mark.parametrize("neuron", ["lif", "clif", "glif", "psn", "leaky"])
def test_spikes_show_the_membrane_potential_that_the_surrogate_gets(neuron):
    zoo.register_neuron("leaky")(Leaky)
    layer = zoo.create_neuron(neuron, 4)
    x = torch.randn(8, 5, 6, 6).to(memory_format=torch.channels_last)
    plain = layer(x)
    assert not hasattr(plain, "potential")
    layer.shows_potential = True
    spikes = layer(x)
    assert torch.equal(spikes, plain)
    assert torch.equal((spikes.potential >= 0).float(), spikes)
    if neuron == "lif":  # the first step, from rest
        assert torch.equal(spikes.potential[:2], x[:2] - 1)
    assert not hasattr(layer.eval()(x), "potential")


def test_the_decorator_and_registering_again():
    @zoo.register_neuron("decorated")
    class Decorated(Leaky):
        """It is given back."""

    assert isinstance(Decorated, type)
    zoo.register_neuron("twice")(Leaky)
    zoo.register_neuron("twice")(Leaky)  # as a file does that is imported, and a plugin, too

    class Other(Leaky):
        def step(self, x_t, state=None):
            return super().step(x_t, state)

    zoo.register_neuron("twice")(Other)
    assert isinstance(zoo.create_neuron("twice", 2), Other)
    for name in ("lif", "model", "none", "a b", "", 3, None, ["x"]):
        with pytest.raises(ZooError, match=r"already registered|is no name"):
            zoo.register_neuron(name)(Leaky)


@pytest.mark.parametrize("cls", [nn.Identity, Leaky(), 3, type("Mine", (zoo.SpikingNeuron,), {})])
def test_what_is_no_neuron_is_one_error(cls):
    with pytest.raises(ZooError, match=r"^neuron 'mine' must be a subclass of zoo\.SpikingNeuron with a step") as error:
        zoo.register_neuron("mine")(cls)
    assert "\n" not in str(error.value)
    assert "mine" not in zoo.list_neurons()


def steep(x, width):
    return triangle(x, width) * 3


@pytest.mark.parametrize("scaling", [None, {"name": "causal_trace", "alpha": 0.5}])
def test_the_gradient_is_that_of_ones_own_surrogate(scaling):
    """On the kernel "auto", which would be fused for ours, and with gradient scaling on."""
    zoo.register_surrogate("same", width=2.0)(lambda x, width: triangle(x, width))
    zoo.register_surrogate("steep", width=2.0)(steep)
    x, found = torch.randn(3, 3, 16, 16), {}
    for name, kernel in (("triangle", "reference"), ("same", "auto"), ("steep", "auto"), ("steep", "reference")):
        torch.manual_seed(1)
        spec = {"name": name, "width": 2.0} if name == "triangle" else name
        model = tiny(surrogate=spec, scaling=scaling, kernel=kernel)
        assert model.kernel_for("cpu", torch.float32) == "reference"
        found[name, kernel] = gradients(model, x)
    equal = lambda a, b: all(map(torch.equal, found[a], found[b]))  # noqa: E731
    assert equal(("same", "auto"), ("triangle", "reference"))
    assert equal(("steep", "auto"), ("steep", "reference"))
    assert not equal(("steep", "auto"), ("same", "auto"))


def test_compiled_neurons_keep_ones_own_surrogate():
    zoo.register_surrogate("steep")(steep)
    neuron, current = LIF(4, surrogate="steep"), torch.randn(8, 6)
    found = []
    for run in (neuron, torch.compile(neuron, backend="aot_eager")):
        x = current.clone().requires_grad_()
        (run(x) * torch.arange(8.0)[:, None]).sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)
    assert not torch.equal(found[0], 0 * current)


def test_kernels_step_aside_with_one_message():
    zoo.register_surrogate("steep")(steep)
    _announce.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            tiny(surrogate="steep")(torch.randn(2, 3, 16, 16))
    (message,) = [str(warning.message) for warning in seen]
    assert "the cpp kernel does not know the surrogate 'steep'" in message
    with pytest.raises(ZooError, match="does not know the surrogate 'steep'"):
        LIF(4, surrogate="steep", kernel="fused")(torch.randn(4, 3))
    assert LIF(4, surrogate="steep").kernel_for("cuda", torch.float32) == "reference"


def test_names_and_widths_of_surrogates():
    for name in ("triangle", "model", "a-b", 1):
        with pytest.raises(ZooError, match=r"already registered|is no name"):
            zoo.register_surrogate(name)(steep)
    with pytest.raises(ZooError, match="takes a function"):
        zoo.register_surrogate("mine")(3)
    for width in (0, -1, float("nan"), "1", True):
        with pytest.raises(ZooError, match="width of surrogate 'mine'"):
            zoo.register_surrogate("mine", width=width)(steep)
    zoo.register_surrogate("mine", width=0.25)(steep)
    assert LIF(4, surrogate="mine").surrogate.width == 0.25
