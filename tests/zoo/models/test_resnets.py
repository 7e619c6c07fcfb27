"""The residual families: published sizes, equality with SpikingJelly's networks, which layers are scaled and tied."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.layers import LayerFactory
from zoo.models.ms_resnet import MaxResNet, MSResNet
from zoo.models.sew_resnet import CONNECTS, SEWBlock, SEWResNet
from zoo.models.sresnet import SResNet

FAMILIES = {"sresnet": SResNet, "sew": SEWResNet, "ms": MSResNet, "max": MaxResNet}
VARIANTS = [("sresnet", {}), *(("sew", {"connect": c}) for c in CONNECTS), ("ms", {}), ("max", {})]


def small(family, **kwargs):
    """Three blocks that have every kind of layer: an entry of stride 1, one of stride 2, and a block behind a block."""
    return FAMILIES[family]((2, 1), (8, 16), 4, **{"timesteps": 2, "kernel": "reference"} | kwargs)


def gradients(model, x):
    F.cross_entropy(model(x), torch.arange(len(x))).backward()
    return {key: p.grad for key, p in model.named_parameters()}


def _jelly_neuron():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    numbers = {"tau": 2.0, "decay_input": False, "detach_reset": True}
    return {"spiking_neuron": neuron.LIFNode, **numbers, "surrogate_function": surrogate.PiecewiseQuadratic(alpha=1.0)}


def _jelly_torchvision(module, name, **kwargs):
    """One of SpikingJelly's networks of ImageNet's shape, with a stem for small images."""
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    module = pytest.importorskip(f"spikingjelly.activation_based.model.{module}")
    peer = getattr(module, name)(module.BasicBlock, [2, 1, 1, 1], num_classes=10, **_jelly_neuron(), **kwargs)
    peer.conv1, peer.maxpool = layer.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    pytest.importorskip("spikingjelly.activation_based.functional").set_step_mode(peer, "m")
    return peer


def _jelly_membrane(name):
    """SpikingJelly's MSResNet or MaxResNet, with a stem and a first stage for small images."""
    ms_resnet = pytest.importorskip("spikingjelly.activation_based.model.ms_resnet")
    small_images = type(name, (getattr(ms_resnet, name),), {"_first_stage_stride": 1})
    shape = {"layers": (2, 1, 2), "base_channels": 4, "stage_channels": (8, 16, 32)}
    return small_images(2, num_classes=10, stem_kernel_size=3, stem_stride=1, **shape, **_jelly_neuron())


def _pair(family, connect):
    """One of our networks, and SpikingJelly's of the same shape."""
    membrane = {"depths": (2, 1, 2), "widths": (8, 16, 32), "stem": 4}
    imagenet = {"depths": (2, 1, 1, 1), "widths": (64, 128, 256, 512), "stem": 64}
    if family == "sresnet":
        peer = _jelly_torchvision("spiking_resnet", "SpikingResNet")
        return SResNet(**imagenet, timesteps=2, kernel="reference"), peer
    if family == "sew":
        peer = _jelly_torchvision("sew_resnet", "SEWResNet", cnf=connect)
        return SEWResNet(**imagenet, timesteps=2, kernel="reference", connect=connect), peer
    name = {"ms": "MSResNet", "max": "MaxResNet"}[family]
    return FAMILIES[family](**membrane, timesteps=2, kernel="reference"), _jelly_membrane(name)


def assert_same_network(ours, theirs, x, steps=None):
    """In logits and all gradients; both hold their layers in one order. With `steps`, `theirs` takes so many copies."""
    known = theirs.state_dict()
    values = zip(known, ours.state_dict().values(), strict=True)
    theirs.load_state_dict({key: value.reshape(known[key].shape) for key, value in values})
    y, z = ours(x.requires_grad_()), theirs(x if steps is None else x.expand(steps, *x.shape))
    z = z if steps is None else z.mean(0)
    assert y.std() > 0.01
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    own, other = (
        torch.autograd.grad((logits * weights).sum(), [x, *network.parameters()])
        for logits, network in ((y, ours), (z, theirs))
    )
    for a, b in zip(own, other, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b.view_as(a), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_equals_spikingjelly(family, variant):
    """Logits and gradients of the input and of every parameter, in float64 and evaluation mode."""
    model, peer = (m.double().eval() for m in _pair(family, variant.get("connect")))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, 0.0, 0.6)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.0)
    steps = 2 if family in ("sresnet", "sew") else None
    assert_same_network(model, peer, torch.randn(2, 3, 8, 8, dtype=torch.float64) * 2, steps)


@pytest.mark.parametrize("layers", [18, 19, 20, 32, 34])
def test_scaled_layers_of_post_activation(layers):
    """3 x 3, equal channels, stride 1; sew_resnet likewise."""
    for name in (f"sresnet{layers}", f"sew_resnet{layers}"):
        if not zoo.is_model(name):
            continue
        model = zoo.create_model(f"{name}_w16_gs")
        scaled = {key for key, m in model.named_modules() if getattr(m, "scaling", None)}
        expected = {
            key
            for key, m in model.named_modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.stride == (1, 1)
            if m.in_channels == m.out_channels
        }
        assert scaled == expected
        depths = [len(stage) for stage in model.stages]
        assert len(scaled) == 2 * sum(depths) - len(depths) + 1  # all stages but the first are entered anew


@pytest.mark.parametrize("family", ["ms", "max"])
@pytest.mark.parametrize("layers", ["default", "all"])
def test_scaled_layers_of_pre_activation(family, layers):
    """The second convolution that ends a stage, but for the last stage, is out of reach."""
    model = FAMILIES[family]((2, 3, 1), (8, 16, 32), 4, scaling={"name": "causal_trace", "layers": layers})
    scaled = {key for key, m in model.named_modules() if getattr(m, "scaling", None)}
    equal = {"stages.0.0.conv2", "stages.0.1.conv1", "stages.1.1.conv1", "stages.1.2.conv1"}
    equal |= {"stages.1.0.conv2", "stages.1.1.conv2", "stages.2.0.conv2"}
    entries = {"stages.0.0.conv1"} | ({"stages.1.0.conv1", "stages.2.0.conv1"} if family == "ms" else set())
    assert scaled == (equal | entries if layers == "all" else equal)


def test_a_membrane_convolution_is_scaled_by_the_next_neurons_on_the_stream():
    """The factor by hand, of the convolution that ends a block and of the one that ends the network."""
    torch.manual_seed(0)
    model = small("ms", scaling={"name": "causal_trace", "alpha": 1.0, "layers": "*conv2"}).double().train()
    seen = {}

    def record(name, *, grad=False):
        def hook(module, inputs, output):
            seen[name] = output
            if grad:
                output.retain_grad()

        model.get_submodule(name).register_forward_hook(hook)

    behind = {"stages.0.0": "stages.0.1.lif1", "stages.1.0": "stages.1.1.lif"}
    for block, neurons in behind.items():
        record(f"{block}.lif2")
        record(neurons)
        record(f"{block}.conv2", grad=True)
    gradients(model, torch.randn(3, 3, 8, 8, dtype=torch.float64))
    k = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    for block, neurons in behind.items():
        conv = model.get_submodule(f"{block}.conv2")
        pre, post, error = (
            z.detach().unflatten(0, (2, -1))
            for z in (seen[f"{block}.lif2"], seen[neurons], seen[f"{block}.conv2"].grad)
        )
        expected, traces = torch.zeros_like(conv.weight), (torch.zeros_like(pre[0]), torch.zeros_like(post[0]))
        for t in range(2):
            traces = (k * traces[0] + pre[t], k * traces[1] + post[t])
            evidence = nn.grad.conv2d_weight(traces[0], conv.weight.shape, traces[1], padding=1)
            step = nn.grad.conv2d_weight(pre[t], conv.weight.shape, error[t], padding=1)
            expected += evidence / evidence.max() * step
        torch.testing.assert_close(conv.weight.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("connect", "table"), [("ADD", [0, 1, 1, 2]), ("AND", [0, 0, 0, 1]), ("IAND", [0, 0, 1, 0])], ids=CONNECTS
)
def test_connect(connect, table):
    """The four cases of (shortcut, convolutions), in their order as binary numbers."""
    block = SEWBlock(1, 1, 1, LayerFactory(1, "lif", "triangle", "bn", "reference"), connect).eval()
    shortcut = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1)
    block.lif2.register_forward_hook(lambda m, i, o: torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1))
    assert block(shortcut).flatten().tolist() == table


@pytest.mark.parametrize("norm", ["bn", "tebn"])
def test_a_stem_without_neurons_repeats_its_current(norm):
    """Images are the same as frames that are all that image, also where the norm treats the steps differently."""
    torch.manual_seed(0)
    model = small("max", norm=norm).double().eval()
    if norm == "tebn":
        model.bn1.p.data = torch.tensor([0.5, 2.0], dtype=torch.float64)
    frames = small("max", norm=norm, encoding="frames").double().eval()
    frames.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x), frames(x.unsqueeze(1).expand(2, 2, 3, 8, 8)), rtol=1e-9, atol=1e-9)
