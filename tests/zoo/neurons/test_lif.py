"""Neurons and surrogates against their equations, written again as plain loops, and LIF against other libraries'."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.neurons import create_neuron
from zoo.neurons.lif import LIF, PLIF
from zoo.neurons.surrogate import Surrogate, list_surrogates, resolve_surrogate


def by_hand(x, decay, threshold, reset, decay_input):
    """The dynamics of one neuron over a list of currents, in Python floats (float64)."""
    v, spikes = 0.0, []
    for current in x:
        u = decay * v + (1 - decay if decay_input else 1.0) * current
        s = 1.0 if u - threshold >= 0 else 0.0
        v = u * (1 - s) if reset == "hard" else u - threshold * s
        spikes.append(s)
    return spikes


@given(
    currents=st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=1, max_size=6),
    decay=st.floats(0, 1),
    threshold=st.floats(0.1, 2),
    reset=st.sampled_from(["hard", "soft"]),
    decay_input=st.booleans(),
)
def test_forward_follows_the_equations(currents, decay, threshold, reset, decay_input):
    assume(not (decay_input and decay == 1))  # refused: currents times 0
    x = torch.tensor(currents, dtype=torch.float64)
    lif = LIF(len(x), decay=decay, threshold=threshold, reset=reset, decay_input=decay_input, kernel="reference")
    expected = [by_hand(x[:, i].tolist(), decay, threshold, reset, decay_input) for i in range(3)]
    assert lif(x).T.tolist() == expected


def test_a_tie_at_the_threshold_spikes():
    currents = torch.tensor([[1.0], [1.0 - 2**-24], [math.inf], [-math.inf]])
    assert LIF(1, threshold=1.0)(currents)[:, 0].tolist() == [1, 0, 1, 0]


SHAPES = {
    "triangle": lambda x, w: max(0.0, 1 - abs(x) / w) / w,
    "rectangle": lambda x, w: (abs(x) < w / 2) / w,
    "arctan": lambda x, w: 1 / w / (1 + (math.pi * x / w) ** 2),
    "sigmoid": lambda x, w: math.exp(-x / w) / (1 + math.exp(-x / w)) ** 2 / w,
}


@pytest.mark.parametrize("name", list_surrogates())
@pytest.mark.parametrize("width", [0.25, 1.0, 2.0])
def test_surrogates_have_their_shape_and_unit_area(name, width):
    x = (torch.arange(-512, 513, dtype=torch.float64) / 128).requires_grad_()  # exact, where a shape ends, too
    Surrogate(name, width).spike(x).sum().backward()
    expected = torch.tensor([SHAPES[name](v, width) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    area = Surrogate(name, width).derivative(torch.linspace(-400, 400, 800_001, dtype=torch.float64)).sum() * 1e-3
    assert area == pytest.approx(1, abs=5e-3)


def test_surrogates_have_the_widths_of_their_sources():
    widths = {name: resolve_surrogate(name).width for name in list_surrogates()}
    assert widths == {"triangle": 1, "rectangle": 1, "arctan": 1, "sigmoid": 0.25}


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
def test_gradient_follows_the_chain_rule(reset, detach, decay_input):
    """dL/dx over three steps, the recursion through the membrane written out by hand."""
    decay, threshold, scale = 0.6, 0.8, 0.4 if decay_input else 1.0
    x = torch.randn(3, 50, dtype=torch.float64, requires_grad=True)
    numbers = {"decay": decay, "threshold": threshold, "reset": reset, "decay_input": decay_input}
    lif = LIF(3, **numbers, detach_reset=detach, kernel="reference")
    weight = torch.randn(3, 50, dtype=torch.float64)
    (lif(x) * weight).sum().backward()

    v, us, ss = torch.zeros(50, dtype=torch.float64), [], []
    for t in range(3):
        u = decay * v + scale * x.detach()[t]
        s = (u >= threshold).double()
        v = u * (1 - s) if reset == "hard" else u - threshold * s
        us.append(u), ss.append(s)
    expected, dv = [], torch.zeros(50, dtype=torch.float64)
    for t in (2, 1, 0):
        phi = torch.clamp(1 - (us[t] - threshold).abs(), min=0)
        through_reset = 0 if detach else -(us[t] if reset == "hard" else threshold)
        ds = weight[t] + dv * through_reset
        du = ds * phi + dv * ((1 - ss[t]) if reset == "hard" else 1)
        expected.append(scale * du)
        dv = decay * du
    torch.testing.assert_close(x.grad, torch.stack(expected[::-1]), rtol=1e-12, atol=1e-12)


def test_plif_starts_at_its_decay_and_learns():
    plif = PLIF(2, decay=0.7)
    assert plif.decay.item() == pytest.approx(0.7)
    x = torch.randn(8, 50)
    assert torch.equal(plif(x), LIF(2, decay=plif.decay.item(), decay_input=True)(x))
    plif(x).sum().backward()
    assert plif.w.grad != 0


@pytest.mark.parametrize("name", ["lif", "if", "plif", "clif", "glif"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_step_equals_forward_bit_for_bit(name, dtype):
    neuron = create_neuron(name, 4, kernel="reference")  # fused: test_kernels.py
    for parameter in neuron.parameters():
        parameter.data += torch.randn_like(parameter)
    x = torch.randn(4 * 3, 4, 7).to(dtype)
    state, spikes = None, []
    for x_t in x.unflatten(0, (4, 3)):
        s, state = neuron.step(x_t, state)
        first = state if isinstance(state, torch.Tensor) else state[0]
        assert first.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
        spikes.append(s)
    out = neuron(x)
    assert out.dtype == dtype
    assert 0 < out.float().mean() < 1
    assert torch.equal(out, torch.cat(spikes))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("lyf", "lif"),
        ({"name": ["lif"]}, "unknown neuron"),
        (["lif"], "neuron takes"),
        ({"name": "lif", "dcay": 0.5}, "decay"),
        ({"name": "lif", "decay": 1.5}, "1.5"),
        ({"name": "lif", "decay": float("nan")}, "nan"),
        ({"name": "lif", "decay": 10**400}, "decay"),
        ({"name": "lif", "decay": 0.5, "tau": 2}, "not both"),
        ({"name": "lif", "tau": 0.5}, "tau.*0.5"),
        ({"name": "lif", "threshold": 1e300}, "threshold must be a number in"),
        ({"name": "lif", "reset": "none"}, "hard"),
        ({"name": "lif", "detach_reset": 1}, "detach_reset"),
        ({"name": "lif", "decay": 1.0, "decay_input": True}, "give a decay below 1"),
        ({"name": "if", "decay": 0.5}, "unknown key of neuron if 'decay'"),
        ({"name": "plif", "decay": 1.0}, "between 0 and 1"),
        ({"name": "clif", "reset": "hard"}, "key of neuron clif 'reset'"),
        ({"name": "clif", "decay": 1, "decay_input": True}, "take their currents times 0"),
        ({"name": "glif", "threshold": 1.0}, "threshold of glif must start between 0 and 1, not at 1"),
        ({"name": "glif", "threshold": 1.5}, "threshold of glif"),
        ({"name": "glif", "decay": 0.0}, "decay of glif must start between 0 and 1, not at 0"),
        ({"name": "psn", "decay": 0.5}, "key of neuron psn 'decay'.*threshold"),
    ],
)
def test_bad_neurons_are_named(spec, word):
    with pytest.raises(ZooError, match=word):
        create_neuron(spec, 4)


def test_other_bad_values_are_named():
    for timesteps in (0, 2.0, True, None):
        with pytest.raises(ZooError, match="timesteps"):
            LIF(timesteps)
    with pytest.raises(ZooError, match="7 is not a multiple of 4"):
        LIF(4)(torch.zeros(7, 3))
    for spec, word in (("triangel", "triangle"), ({"name": "arctan", "width": 0}, "width")):
        with pytest.raises(ZooError, match=word):
            resolve_surrogate(spec)


T = 6


@pytest.fixture
def currents():
    return torch.randn(T, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


def ours(currents, spec, surrogate):
    x = currents.clone().requires_grad_()
    spikes = create_neuron(spec, T, surrogate, "auto")(x)
    (spikes * weights(currents)).sum().backward()
    return spikes.detach(), x.grad


def weights(currents):
    return torch.linspace(-1, 2, currents.numel(), dtype=currents.dtype).view_as(currents)


@pytest.mark.parametrize(("reset", "v_reset"), [("hard", 0.0), ("soft", None)])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize(("surrogate", "name"), [("triangle", "PiecewiseQuadratic"), ("arctan", "ATan")])
def test_spikingjellys_lif(reset, v_reset, decay_input, surrogate, name, currents):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    functions = pytest.importorskip("spikingjelly.activation_based.surrogate")
    width, alpha = (1.0, 1.0) if surrogate == "triangle" else (0.5, 4.0)  # ATan's alpha is 2 / width
    lif = neuron.LIFNode(
        tau=2.0, decay_input=decay_input, v_reset=v_reset, detach_reset=True, step_mode="m",
        surrogate_function=getattr(functions, name)(alpha=alpha),
    )  # fmt: skip
    x = currents.clone().requires_grad_()
    spikes = lif(x)
    (spikes * weights(currents)).sum().backward()
    spec = {"name": "lif", "tau": 2.0, "decay_input": decay_input, "reset": reset}
    own, grad = ours(currents, spec, {"name": surrogate, "width": width})
    assert 0.05 < own.mean() < 0.95
    assert torch.equal(own, spikes.detach())
    torch.testing.assert_close(grad, x.grad)


def test_snntorchs_leaky(currents):
    snntorch = pytest.importorskip("snntorch")
    leaky, spikes = snntorch.Leaky(beta=0.7, reset_mechanism="zero"), []
    state = leaky.init_leaky()
    for current in currents:
        spike, state = leaky(current, state)
        spikes.append(spike)
    own, _ = ours(currents, {"name": "lif", "decay": 0.7}, "triangle")
    assert 0.05 < own.mean() < 0.95
    assert torch.equal(own, torch.stack(spikes))
