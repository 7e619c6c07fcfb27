"""The VGG family: sizes, order of operations, and gradient scaling in front of a pool."""

import pytest
import torch
from test_resnets import assert_same_network
from torch import nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

import zoo
from zoo.errors import ZooError
from zoo.models._dense import StepDropout
from zoo.models.svgg import SVGG

LAYERS = (4, "A", 6, 6, "A", 8, "A")


def small(layers=LAYERS, hidden=(12, 10), **kwargs) -> SVGG:
    defaults = {"timesteps": 3, "img_size": 16, "num_classes": 5, "kernel": "reference"}
    return SVGG(layers, hidden, **defaults | kwargs)


# The originals: DIET-SNN's have no biases and no normalisation, the others' convolutions have a bias.
@pytest.mark.parametrize(
    ("name", "params", "published"),
    [
        ("svgg5", 50_612_554, 1728 + 73_728 + 147_456 + 8192 * 4096 + 4096 * 4096 + 40_960),
        ("svgg9", 32_086_090, 1728 + 9 * 64 * 128 + 9 * 128 * 256 + 9 * 256 * 256 + 9 * 256 * 512 + 2 * 9 * 512 * 512
         + 2048 * 4096 + 4096 * 4096 + 40_960),
        ("svgg11", 9_228_362, 9_231_114),
        ("svgg13", 9_413_066, 9_416_010),
        ("svgg16", 14_724_042, 14_728_266),
    ],
)  # fmt: skip
def test_parameter_counts(name, params, published):
    with torch.device("meta"):
        model = zoo.create_model(name, kernel="reference")
    assert sum(p.numel() for p in model.parameters()) == params
    assert params == pytest.approx(published, rel=0.001)


def test_equals_a_network_of_spikingjelly_layers():
    """Layer by layer in SpikingJelly, in float64: logits and gradients."""
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    ours = small(surrogate="arctan").double()
    for norm in (m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight, 1, 0.2)
        nn.init.normal_(norm.bias, 0.3, 0.2)
        norm.momentum = 0.5
    ours(torch.randn(8, 3, 16, 16, dtype=torch.float64))  # for running statistics
    ours.eval()

    def lif():
        return neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0, detach_reset=True,
                              surrogate_function=surrogate.ATan(2.0))  # fmt: skip

    channels, layers = 3, []
    for i, width in enumerate(LAYERS):
        if width == "A":
            continue
        pool = [layer.AvgPool2d(2)] if LAYERS[i + 1 : i + 2] == ("A",) else []
        layers += [layer.Conv2d(channels, width, 3, padding=1, bias=False), *pool, layer.BatchNorm2d(width), lif()]
        channels = width
    layers.append(layer.Flatten())
    features = channels * 4
    for width in (12, 10):
        layers += [layer.Linear(features, width, bias=False), layer.BatchNorm1d(width), lif()]
        features = width
    theirs = nn.Sequential(*layers, layer.Linear(features, 5)).double().eval()
    functional.set_step_mode(theirs, "m")
    assert_same_network(ours, theirs, torch.randn(4, 3, 16, 16, dtype=torch.float64), 3)


def test_scaled_layers():
    for name, expected in [
        ("svgg5", {"0.1"}),
        ("svgg9", {"1.0", "2.0", "3.0"}),
        ("svgg11", {"1.1", "2.1", "3.0", "3.1"}),
        ("svgg16", {"0.0", "1.1", "2.1", "2.2", "3.1", "3.2", "4.0", "4.1", "4.2"}),
    ]:
        with torch.device("meta"):
            model = zoo.create_model(f"{name}_gs", kernel="reference")
        scaled = {key for key, m in model.named_modules() if getattr(m, "scaling", None)}
        assert scaled == {f"stages.{place}.conv" for place in expected}


@pytest.mark.parametrize("size", [16, 18])  # 18: the second pool leaves a row and a column out
def test_a_pooled_convolution_is_scaled_by_the_neurons_behind_its_pool(size):
    """Against the rule written out: every position that a neuron averages over has that neuron's spikes."""
    steps, alpha, k = 3, 0.5, torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    pooled, seen = {}, {}
    for scaling in (None, "causal_trace"):
        torch.manual_seed(0)
        model = small(scaling=scaling, img_size=size).double().train()
        layer = model.stages[0][1]
        if scaling is None:
            layer.conv.register_forward_hook(lambda m, i, o: seen.update(pre=i[0].detach(), current=o))
            layer.conv.register_full_backward_hook(lambda m, i, o: seen.update(error=o[0]))
            layer.register_forward_hook(lambda m, i, o: seen.update(post=o.detach()))
        F.cross_entropy(model(x), torch.arange(4)).backward()
        pooled[scaling] = layer.conv.weight.grad
    post = seen["post"].repeat_interleave(2, -1).repeat_interleave(2, -2)
    odd = seen["current"].shape[-1] - post.shape[-1]
    assert odd == size // 2 % 2
    post = F.pad(post, (0, odd, 0, odd))
    shape = pooled[None].shape
    pre, post, error = (z.unflatten(0, (steps, -1)) for z in (seen["pre"], post, seen["error"]))
    trace_pre, trace_post, expected, plain = 0, 0, 0, 0
    for t in range(steps):
        trace_pre, trace_post = k * trace_pre + pre[t], k * trace_post + post[t]
        evidence = conv2d_weight(trace_pre, shape, trace_post, padding=1)
        step = conv2d_weight(pre[t], shape, error[t], padding=1)
        expected = expected + (1 - alpha + alpha * evidence / evidence.max()) * step
        plain = plain + step
    torch.testing.assert_close(pooled[None], plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pooled["causal_trace"], expected, rtol=1e-9, atol=1e-12)
    assert not torch.equal(pooled["causal_trace"], pooled[None])


def test_other_image_sizes():
    x = torch.randn(2, 3, 64, 64)
    model = small(img_size=64, stem_stride=4).eval()
    assert model(x).shape == (2, 5)
    assert model.model_args["img_size"] == 64
    assert small(img_size=None, stem_stride=2).eval()(x).shape == (2, 5)  # 32 pixels behind the stem
    assert small(hidden=()).eval()(x).shape == (2, 5)
    for name in ("svgg11_w16", "svgg9_w16"):  # without hidden layers and with them
        assert zoo.create_model(name, stem_stride=4).pretrained_cfg["input_size"] == (3, 128, 128)
    with pytest.raises(ZooError, match=r"\[8, 8\], not \[2, 2\]: build the network with img_size"):
        small()(x)
    with pytest.raises(ZooError, match="cannot be pooled"):
        small(hidden=())(torch.randn(1, 3, 4, 4))
    with pytest.raises(ZooError, match="img_size 4 with stem_stride 1 is too small for 3 pools"):
        small(img_size=4)
    for key in ("img_size", "stem_stride"):
        with pytest.raises(ZooError, match=key):
            small(**{key: 0})


def test_dropout_drops_neurons_not_spikes():
    drop = StepDropout(0.5, 3)
    kept = drop(torch.ones(3 * 2, 50)).view(3, 2, 50)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])
    assert not torch.equal(kept[:, 0], kept[:, 1])
    x = torch.ones(6, 50)
    assert drop.eval()(x) is x
    model = small(dropout=0.5, scaling={"name": "causal_trace", "layers": "all"}).train()
    F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
