"""Which layers a rule reaches, linear layers, and the cheap forms of a rule against the exact one."""

import pytest
import torch
from brute_force import PRESETS, by_hand, example, fitting
from conftest import tiny
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers import ConvNeuron, LayerFactory
from zoo.models.sresnet import SResNet
from zoo.neurons.lif import LIF
from zoo.scaling.layers import PostSpikes, SpikingConv2d, SpikingLinear
from zoo.scaling.rules import PRESETS as RULES
from zoo.scaling.rules import Rule
from zoo.scaling.spec import Scaling, resolve_scaling

KIND = (3, 4, 3, 1, 1, 1, 1)
POINT = (3, 4, 1, 1, 0, 1, 1)


def gradient(layer, pre, post, error):
    layer.weight.grad = None
    link = PostSpikes()
    y = layer(pre.flatten(0, 1), link)
    (y * error.flatten(0, 1) + 0 * link.tie(post.flatten(0, 1))).sum().backward()
    return layer.weight.grad


def convolution(rule, steps=2):
    torch.manual_seed(1)
    return SpikingConv2d(3, 4, 3, 1, 1, timesteps=steps, scaling=rule).double()


def examples(count, batch=4):
    return [example(KIND, 2, batch, (0.2 + 0.2 * i, 0.3)) for i in range(count)]


def test_averages_between_blocks_give_the_right_gradient():
    """Backward keeps in one byte only what a block is told to be spikes."""
    block = ConvNeuron(3, 4, LayerFactory(2, "lif", "triangle", "bn", "reference"), 3)
    x = torch.rand(4, 3, 6, 6)
    block(x).sum().backward()
    got, block.conv.weight.grad = block.conv.weight.grad, None
    block.lif(F.conv2d(x, block.conv.weight, padding=1), norm=block.bn).sum().backward()
    torch.testing.assert_close(got, block.conv.weight.grad)
    assert got.norm() > 0


@pytest.mark.parametrize("binary", [True, False])
def test_backward_keeps_a_byte_of_a_spike_where_a_block_is_told_so(binary):
    block = ConvNeuron(3, 4, LayerFactory(2, "lif", "triangle", "bn", "reference"), 3, binary=binary)
    spikes, kept = (torch.rand(4, 3, 6, 6) < 0.3).float(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        block(spikes)
    found = {x.dtype for x in kept if x.shape == spikes.shape and torch.equal(x.float(), spikes)}
    assert found == {torch.int8 if binary else torch.float32}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("steps", "batch"), [(3, 2), (1, 1)])
def test_a_linear_layer_equals_brute_force(name, steps, batch):
    kind = fitting(POINT, name)
    pre, post, error = (z[..., :1, :1] for z in example(kind, steps, batch, (0.6, 0.6)))
    layer = SpikingLinear(*kind[:2], timesteps=steps, scaling=Scaling(name, 0.7)).double()
    flat = [z[..., 0, 0] for z in (pre, post, error)]
    x = flat[0].flatten(0, 1).requires_grad_()
    link = PostSpikes()
    y = layer(x, link)
    torch.testing.assert_close(y, F.linear(x, layer.weight, layer.bias), rtol=1e-12, atol=1e-12)
    (y * flat[2].flatten(0, 1) + 0 * link.tie(flat[1].flatten(0, 1))).sum().backward()
    expected, passed = by_hand(name, pre, post, error, 0.7, kind)
    torch.testing.assert_close(layer.weight.grad, expected[..., 0, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(x.grad, passed.flatten(0, 1)[..., 0, 0] @ layer.weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.bias.grad, flat[2].sum((0, 1)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["causal_trace", "window"])
def test_a_factor_is_used_until_the_next_one(name):
    data = examples(3)
    kept = convolution(Scaling(name, 0.7, every=2))
    exact = convolution(Scaling(name, 0.7))
    got = [gradient(kept, *one) for one in data]
    torch.testing.assert_close(got[0], gradient(exact, *data[0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got[2], gradient(exact, *data[2]), rtol=1e-12, atol=1e-12)
    # The second step: the first one's factor on its own gradient.
    pre, post, error = data[0]
    shape = exact.weight.shape

    def operator(a, b):
        return torch.nn.grad.conv2d_weight(a, shape, b, padding=1)

    factor = Scaling(name, 0.7).factor(pre, post, operator, pre.dtype)
    pre, _, error = data[1]
    expected = sum(factor[min(t, len(factor) - 1)] * operator(pre[t], error[t]) for t in range(2))
    torch.testing.assert_close(got[1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])  # or checkpointed, through which torch.compile does not trace
@pytest.mark.parametrize(
    "rule",
    [
        {"name": "causal_trace", "every": 2},
        pytest.param({"name": "channel", "rank": 1}, marks=pytest.mark.slow),
    ],
)
def test_cheap_forms_under_checkpointing_and_compiler(rule, compiled):
    gradients = []
    for changed in (False, True):
        torch.manual_seed(0)
        model = SResNet((1,), (8,), stem=4, hidden=16, timesteps=2, scaling=rule).double().train()
        model.set_grad_checkpointing(changed and not compiled)
        network = torch.compile(model, fullgraph=True, backend="aot_eager") if changed and compiled else model
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(4):
            x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
            optimizer.zero_grad()
            F.cross_entropy(network(x), torch.arange(4)).backward()
            optimizer.step()
        gradients.append([p.grad for p in model.parameters()])
        state = model.scaling_state()
        assert bool(state) == ("every" in rule)
        assert all(int(value) == 4 for key, value in state.items() if key.endswith("calls"))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_kept_factor_is_no_part_of_the_weights():
    plain, scaled = tiny(), tiny(scaling={"name": "window", "every": 4})
    assert plain.state_dict().keys() == scaled.state_dict().keys()
    F.cross_entropy(scaled(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
    other = tiny(scaling={"name": "window", "every": 4})
    other.load_scaling_state(scaled.scaling_state())
    for key, value in scaled.scaling_state().items():
        assert torch.equal(other.scaling_state()[key], value)


def reached(layers):
    model = tiny(scaling={"name": "window", "layers": layers})
    return {n for n, m in model.named_modules() if isinstance(m, SpikingConv2d) and m.scaling}


def test_a_convolution_takes_the_padding_that_is_given_and_refuses_what_it_cannot_do():
    make, x = LayerFactory(2, "lif", "triangle", "bn", "reference"), torch.rand(2, 3, 32, 32).round()
    sides = [make.conv(3, 4, *form)(x).shape[-1] for form in ((3, 1), (5, 2), (2, 2), (4, 4))]
    assert sides == [32, 16, 16, 8]
    assert make.conv(3, 4, 3, padding=0)(x).shape[-1] == 30
    for wrong in ({"padding_mode": "circular"}, {"bias": True}):
        with pytest.raises(ZooError, match="has no bias and is padded with zeros"):
            make.conv(3, 4, **wrong)


def test_a_keyword_widens_and_narrows_what_is_scaled():
    inner = {"stages.0.0.conv2", "stages.0.1.conv1", "stages.0.1.conv2", "stages.1.0.conv2"}
    entries = {"stages.0.0.conv1", "stages.1.0.conv1", "stages.0.0.shortcut.0", "stages.1.0.shortcut.0"}
    assert reached("default") == inner
    assert reached("all") == inner | entries
    assert reached("stages.1.*") == {"stages.1.0.conv1", "stages.1.0.conv2", "stages.1.0.shortcut.0"}
    with pytest.raises(ZooError, match=r"stages\.0\.0\.conv1"):
        reached("stage.1")


def test_repeated_passes_use_the_factors_of_their_own_forward():
    """Two forward passes before one backward, under checkpointing: the second one's factors are other ones."""
    rule, gradients = {"name": "causal_trace", "every": 2}, []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = tiny(scaling=rule).double().train()
        model.set_grad_checkpointing(checkpointing)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        images = [torch.randn(4, 3, 8, 8, dtype=torch.float64) for _ in range(2)]
        sum(F.cross_entropy(model(x), torch.arange(4)) for x in images).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_frozen_layer_passes_down_the_same_error():
    passed = []
    for frozen in (False, True):
        torch.manual_seed(0)
        model = tiny(scaling="local_error").double().train()
        for module in model.modules():
            if isinstance(module, SpikingConv2d):
                module.weight.requires_grad_(not frozen)
        F.cross_entropy(model(torch.randn(4, 3, 8, 8, dtype=torch.float64)), torch.arange(4)).backward()
        passed.append(model.conv1.weight.grad)
    assert torch.equal(*passed)


ONES_OWN = {
    "no_first_axis": (lambda s, alpha: torch.ones(4, 3, 3, 3), "weight", True),
    "steps_for_a_window": (lambda s, alpha: torch.ones(2, 4, 3, 3, 3), "weight", True),
    "a_number": (lambda s, alpha: 0.5, "weight", True),
    "nothing": (lambda s, alpha: None, "weight", False),
    "an_error_without_time": (lambda s, alpha: torch.ones_like(s.post[0]), "error", False),
}


@pytest.mark.parametrize("name", ONES_OWN)
@pytest.mark.parametrize("every", [1, 2])
def test_a_rule_of_ones_own_in_the_wrong_shape_is_named(name, every, monkeypatch):
    factor, locality, window = ONES_OWN[name]
    monkeypatch.setitem(RULES, name, Rule(factor, locality, window))
    spec = {"name": name} | ({"every": every} if every > 1 and locality == "weight" else {})
    layer = convolution(resolve_scaling(spec))
    with pytest.raises(ZooError, match=f"{name} gives .*not a factor of shape"):
        gradient(layer, *examples(1)[0])


def test_a_factor_of_channels_is_spread_over_the_weight(monkeypatch):
    rule = Rule(lambda s, alpha: torch.full((1, 4, 1, 1, 1), 0.5, dtype=torch.float64), window=True)
    monkeypatch.setitem(RULES, "halves", rule)
    for every in (1, 2):
        scaled = gradient(convolution(resolve_scaling({"name": "halves", "every": every})), *examples(1)[0])
        assert torch.allclose(scaled, gradient(convolution(None), *examples(1)[0]) / 2, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scaled_gradients_on_a_gpu_equal_the_cpus():
    gradients = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, x = tiny(scaling="causal_trace").double().to(device), torch.randn(4, 3, 8, 8, dtype=torch.float64)
        F.cross_entropy(model(x.to(device)), torch.arange(4, device=device)).backward()
        gradients.append([p.grad.cpu() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# -- the default rule with the neurons behind it


def test_two_forwards_in_flight_do_not_mix():
    conv, lif = (
        SpikingConv2d(2, 2, 3, 1, 1, timesteps=2, scaling=Scaling("causal_trace", 0.5)).double(),
        LIF(2, threshold=0.2),
    )
    inputs = [(torch.rand(4, 2, 5, 5) < p).double() for p in (0.2, 0.7)]

    def loss(x):
        post = PostSpikes()
        return post.tie(lif(conv(x, post))).sum()

    one_by_one = []
    for x in inputs:
        conv.weight.grad = None
        loss(x).backward()
        one_by_one.append(conv.weight.grad)
    conv.weight.grad = None
    losses = [loss(x) for x in inputs]
    for value in losses:
        value.backward()
    torch.testing.assert_close(conv.weight.grad, sum(one_by_one), rtol=1e-12, atol=1e-12)
