"""CLIF, GLIF and PSN against their equations, written again here in another form, and against SpikingJelly."""

import copy

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.neurons import create_neuron
from zoo.neurons.clif import CLIF
from zoo.neurons.glif import GLIF
from zoo.neurons.psn import PSN

NAMES = ["clif", "glif", "psn"]
STEPS = [1, 2, 4]


def draw(neuron):
    """Parameters away from their start, each of its own."""
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.copy_(parameter + torch.randn_like(parameter))
    return neuron


def make(name, timesteps, **spec):
    return draw(create_neuron({"name": name} | spec, timesteps).double())


SPECS = {
    "clif": [{}, {"decay": 0.9, "threshold": 0.6}, {"tau": 4, "decay_input": True}],
    "glif": [{}, {"decay": 0.8, "threshold": 0.3}],
    "psn": [{}, {"threshold": 0.2}],
}
CASES = [(name, spec) for name, specs in SPECS.items() for spec in specs]


class Apart:
    """The equations with autograd throughout: a spike is a constant plus phi (u - u), phi the triangle."""

    def __init__(self, neuron):
        self.neuron = neuron

    def spike(self, distance):
        phi = torch.clamp(1 - distance.abs(), min=0).detach()
        return (distance >= 0).double() + phi * (distance - distance.detach())

    def clif(self, x):
        n, out = self.neuron, []
        v = m = torch.zeros_like(x[0])
        for current in x:
            u = n.decay * v + current * (1 - n.decay if n.decay_input else 1)
            s = self.spike(u - n.threshold)
            m = s + torch.sigmoid(u * (1 - n.decay)) * m
            cut = n.threshold + torch.sigmoid(m)
            v = u - cut * (s.detach() if n.detach_reset else s)
            out.append(s)
        return torch.stack(out)

    def glif(self, x):
        n, out = self.neuron, []
        value = {key: torch.sigmoid(w) for key, w in n.named_parameters()}
        a, b, g = (value[f"w_{gate}"] for gate in ("alpha", "beta", "gamma"))
        u = s = torch.zeros_like(x[0])
        for t, current in enumerate(x):
            r = s.detach() if n.detach_reset else s
            kept = u - a * u + a * value["w_decay"] * u
            kept = kept - g * r * kept - (1 - g) * r * value["w_reset"] - (1 - a) * value["w_leak"]
            u = kept + (1 - b) * current + b * value["w_conductance"][t] * current
            s = self.spike(u - value["w_threshold"])
            out.append(s)
        return torch.stack(out)

    def psn(self, x):
        n = self.neuron
        return self.spike(torch.einsum("tk,kn->tn", n.weight, x) + n.bias)


@pytest.mark.parametrize(("name", "spec"), [*CASES, ("clif", {"detach_reset": True}), ("glif", {"detach_reset": True})])
@pytest.mark.parametrize("timesteps", STEPS)
def test_spikes_and_gradients_are_those_of_a_formulation_apart(name, spec, timesteps):
    neuron = make(name, timesteps, **spec)
    x = (2 * torch.randn(timesteps, 100, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(timesteps, 100, dtype=torch.float64)
    inputs = [x, *neuron.parameters()]
    out = neuron(x)
    expected_out = getattr(Apart(neuron), name)(x)
    assert torch.equal(out, expected_out.round())
    assert 0 < out.mean() < 1
    # At T = 1 nothing was reset before, and nothing leaks but the linear leak: those parameters get no gradient.
    grads, expected = (
        torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True, materialize_grads=True)
        for y in (out, expected_out)
    )
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    if timesteps > 1:
        assert all(grad.any() for grad in grads)


def test_no_step_where_there_is_none():
    with pytest.raises(ZooError, match="later inputs"):
        PSN(4).step(torch.zeros(2, 3))
    glif, state = GLIF(2), None
    for _ in range(2):
        _, state = glif.step(torch.zeros(2, 3), state)
    with pytest.raises(ZooError, match="2 time steps and none for step 3"):
        glif.step(torch.zeros(2, 3), state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", STEPS)
def test_the_contract_of_lif(name, timesteps):
    """Norm, shortcut and repetition are the plain sum; spikes are 0 or 1, whatever the dtype; no state stays."""
    neuron, norm, short = draw(create_neuron(name, timesteps)), nn.BatchNorm2d(5).train(), nn.BatchNorm2d(5).train()
    x, r = torch.randn(timesteps * 3, 5, 4, 4), torch.randn(timesteps * 3, 5, 4, 4)
    expected = neuron(copy.deepcopy(norm)(x) + copy.deepcopy(short)(r))
    assert torch.equal(neuron(x, norm=norm, shortcut=r, shortcut_norm=short), expected)
    assert torch.equal(neuron(x[:3], repeat=True), neuron(torch.cat([x[:3]] * timesteps)))
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        out = neuron((3 * x).to(dtype))
        assert out.dtype == dtype
        assert out.shape == x.shape
        assert set(out.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(out, neuron((3 * x).to(dtype)))
    assert set(neuron.state_dict()) == {key for key, _ in neuron.named_parameters()}
    assert neuron.kernel_for("cpu", torch.float32) == "reference"
    assert neuron.threshold == (0.5 if name == "glif" else 1.0)
    with pytest.raises(ZooError, match="not a multiple"):
        create_neuron(name, 4)(torch.zeros(7, 3))
    with pytest.raises(ZooError, match="no fused kernel"):
        create_neuron(name, 2, kernel="fused")(torch.zeros(4, 3))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_currents_are_integrated_in_float32(name):
    neuron = draw(create_neuron(name, 4))
    x = torch.randn(4 * 50, 20).bfloat16()
    expected = neuron(x.float())
    assert torch.equal(neuron(x), expected.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(neuron(x.float()), expected)
        assert torch.equal(neuron(x), expected.bfloat16())
    assert torch.equal(copy.deepcopy(neuron).bfloat16()(x), copy.deepcopy(neuron).bfloat16().float()(x))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_break(name):
    neuron = draw(create_neuron(name, 3))
    x = torch.randn(6, 4, 3, 3)
    assert torch.equal(torch.compile(neuron, fullgraph=True, backend="eager")(x, repeat=True), neuron(x, repeat=True))


def test_defaults_are_those_of_the_papers():
    glif = GLIF(6)
    values = {key: value.tolist() for key, value in glif.constants().items()}
    assert values.pop("conductance") == pytest.approx([0.5] * 6)
    expected = {"alpha": 0.55, "beta": 0.65, "gamma": 0.55, "decay": 0.25, "leak": 0.5 / 12, "threshold": 0.5}
    assert values == pytest.approx(expected | {"reset": 0.5})
    assert glif.decay.item() == pytest.approx(0.25)
    assert "detach_reset=False" in repr(glif)
    psn = PSN(9)
    assert psn.bias.tolist() == [[-1.0]] * 9
    assert 0.3 < psn.weight.abs().max() <= 1 / 3
    assert "threshold=1" in repr(psn)
    assert CLIF(4).detach_reset is GLIF(4).detach_reset is False
    assert CLIF(4).decay == 0.5


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs the extra 'peers'")


def assert_same_as_peer(ours, theirs, x):
    theirs, weight = theirs.double(), torch.randn_like(x)
    outs = ours(x.flatten(0, 1)).view(x.shape), theirs(x)
    assert torch.equal(*outs)
    assert 0 < outs[0].mean() < 1
    grads, expected = (
        torch.autograd.grad((out * weight).sum(), [x, *module.parameters()])
        for out, module in zip(outs, (ours, theirs), strict=True)
    )
    torch.testing.assert_close(grads[0], expected[0], rtol=1e-9, atol=1e-12)
    assert {round(g.sum().item(), 8) for g in grads[1:]} == {round(g.sum().item(), 8) for g in expected[1:]}


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("timesteps", STEPS)
def test_spikingjelly_has_the_same_psn(peer, timesteps):
    from spikingjelly.activation_based import surrogate

    ours = draw(create_neuron("psn", timesteps, "arctan").double())
    ours.bias.data.fill_(-0.2)
    theirs = peer.PSN(timesteps, surrogate.ATan(alpha=2.0)).double()
    theirs.load_state_dict(ours.state_dict())
    assert_same_as_peer(ours, theirs, randn(timesteps, 3, 5, 4, 4))


def test_spikingjelly_has_the_same_clif(peer):
    if not hasattr(peer, "ComplementaryLIFNode"):
        pytest.skip("this SpikingJelly has no CLIF")
    theirs = peer.ComplementaryLIFNode(tau=4.0, v_threshold=0.8, step_mode="m")
    ours = create_neuron({"name": "clif", "tau": 4, "threshold": 0.8}, 5, "rectangle")
    assert_same_as_peer(ours, theirs, randn(5, 3, 7))


def test_spikingjelly_has_the_same_glif(peer):
    if not hasattr(peer, "GatedLIFNode"):
        pytest.skip("this SpikingJelly has no GLIF")
    ours, theirs = draw(create_neuron("glif", 4, "sigmoid").double()), peer.GatedLIFNode(4)
    names = {"tau": "decay", "v_threshold": "threshold", "linear_decay": "leak", "v_subreset": "reset"}
    names |= {"conduct": "conductance", "alpha": "alpha", "beta": "beta", "gamma": "gamma"}
    theirs.double().load_state_dict({key: getattr(ours, f"w_{name}") for key, name in names.items()})
    assert_same_as_peer(ours, theirs, randn(4, 3, 5, 2, 2))
