"""Spiking transformers: published sizes, equality with SpikingJelly, what gradient scaling reaches."""

from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.models._attention import QKV
from zoo.models.maxformer import MaxFormer
from zoo.models.qkformer import QKFormer
from zoo.models.sdt import SpikeDrivenTransformer
from zoo.models.spikformer import Spikformer
from zoo.neurons.lif import LIF

FAMILIES = {
    "spikformer": (Spikformer, {"depth": 2, "channels": 32, "heads": 2}),
    "sdt": (SpikeDrivenTransformer, {"depth": 2, "channels": 32}),
    "qkformer": (QKFormer, {"depths": (1, 1, 2), "channels": 32, "heads": 2}),
    "maxformer": (MaxFormer, {"depths": (1, 1, 2), "channels": 64, "heads": 8}),
}


def small(family, **kwargs):
    network, shape = FAMILIES[family]
    return network(**shape, **{"timesteps": 2, "kernel": "reference"} | kwargs)


def lively(model):
    """The model in float64, its normalisations with other numbers than at the start and statistics of random images.

    The bias makes every layer spike, attention of few channels too, without drowning it.
    """
    model.double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, 0.0, 0.6)
    for module in model.modules():
        if isinstance(module, QKV):
            for part in (module.q, module.k, module.v):
                nn.init.uniform_(part.bn.bias, 1.0, 1.6)
    with torch.no_grad():
        model.train()(torch.randn(8, model.in_chans, 16, 16, dtype=torch.float64))
    return model


@pytest.mark.parametrize(
    ("name", "params", "millions", "classes"),
    [
        ("spikformer_4_384", 9_310_906, 9.32, 10),
        ("sdt_2_512", 10_227_274, 10.28, 100),
        ("qkformer_4_384", 6_699_898, 6.74, 100),
        ("maxformer", 6_562_042, 6.57, 10),
    ],
)
def test_parameter_counts(name, params, millions, classes):
    """The published counts within 0.5 %, which are of as many classes."""
    with torch.device("meta"):
        info = zoo.model_info(name)
        published = zoo.model_info(name, num_classes=classes)["params"]
    assert info["params"] == params
    assert published == pytest.approx(millions * 1e6, rel=0.005)


def _links_of_counts(ours, theirs):
    """CountBlock and SpikingJelly's blocks of Spikformer and QKFormer: (ours, theirs, its part of theirs)."""
    width = ours.fc2.conv.out_channels
    attn, theirs_attn = ours.attn, theirs.attn
    parts = [attn.q, attn.k] if hasattr(attn, "q") else [attn.qkv.q, attn.qkv.k, attn.qkv.v]
    fused = theirs_attn.qk_conv_bn if hasattr(attn, "q") else theirs_attn.qkv_conv_bn
    links = []
    for i, part in enumerate(parts):
        rows = slice(i * width, (i + 1) * width)
        links += [(part.conv, fused[0], rows), (part.bn, fused[1], rows)]
    links += [(attn.proj.conv, theirs_attn.proj_conv_bn[0]), (attn.proj.bn, theirs_attn.proj_conv_bn[1])]
    fc1, fc2 = theirs.mlp.fc1, theirs.mlp.fc2
    bn1, bn2 = (theirs.mlp.bn1, theirs.mlp.bn2) if hasattr(theirs.mlp, "bn1") else (fc1[1], fc2[1])
    fc1, fc2 = (fc[0] if hasattr(fc, "__getitem__") else fc for fc in (fc1, fc2))
    return [*links, (ours.fc1.conv, fc1), (ours.fc1.bn, bn1), (ours.fc2.conv, fc2), (ours.fc2.bn, bn2)]


def _links_of_mlp(ours, theirs):
    return [(ours.fc1.conv, theirs.fc1), (ours.fc1.bn, theirs.bn1), (ours.fc2, theirs.fc2), (ours.bn2, theirs.bn2)]


def _jelly_spikformer(ours):
    module = pytest.importorskip("spikingjelly.activation_based.model.spikformer")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    shape = {"embed_dims": 32, "num_heads": 2, "depths": 2}
    peer = module.Spikformer(2, img_size_h=16, img_size_w=16, patch_size=4, num_classes=10, **shape)
    stem = peer.patch_embed
    for stage in stem.stages[2:]:
        # SpikingJelly pools currents here, the paper and its code spikes.
        pool = stage.conv_bn.block[2]
        stage.conv_bn.block[2] = nn.Identity()
        stage.neuron = nn.Sequential(stage.neuron, layer.SeqToANNContainer(pool))
    links = [(ours.conv1, stem.stages[0].conv_bn.block[0]), (ours.bn1, stem.stages[0].conv_bn.block[1])]
    rest = [*stem.stages[1:], stem.positional_encoding]
    for part, stage in zip([*(m for m in ours.stem if hasattr(m, "conv")), ours.position], rest, strict=True):
        links += [(part.conv, stage.conv_bn.block[0]), (part.bn, stage.conv_bn.block[1])]
    for i, block in enumerate(peer.blocks):
        links += _links_of_counts(ours.stages[i][0], block)
    return peer, links


def _jelly_sdt(ours):
    module = pytest.importorskip("spikingjelly.activation_based.model.spike_driven_transformer")
    shape = {"embed_dims": 32, "num_heads": 2, "depths": 2, "pooling_stat": "0011"}
    peer = module.SpikeDrivenTransformer(2, num_classes=10, **shape, detach_reset=True)
    stem = peer.patch_embed
    theirs = [*(stage[:2] for stage in stem.stages), stem.final_stage[:2], (stem.rpe_conv, stem.rpe_bn)]
    maps = [(ours.conv1, ours.bn1), *((m.conv, m.bn) for m in ours.stem[:2]), ours.stem[3:5], ours.position[1:]]
    links = [link for pair in zip(maps, theirs, strict=True) for link in zip(*pair, strict=True)]
    for stage, block in zip(ours.stages, peer.blocks, strict=True):
        mixer, attn = stage[0].mixer, block.attn
        for name in "qkv":
            part = getattr(mixer, name)
            links += [(part.conv, getattr(attn, f"{name}_conv")), (part.bn, getattr(attn, f"{name}_bn"))]
        links += [(mixer.proj, attn.proj_conv), (mixer.bn, attn.proj_bn), *_links_of_mlp(stage[0], block.mlp)]
    return peer, links


def _jelly_qkformer(ours):
    """SpikingJelly has the network for ImageNet; for small images, pooling goes or moves as in the paper's code."""
    module = pytest.importorskip("spikingjelly.activation_based.model.qkformer")
    shape = {"embed_dims": 32, "num_heads": (2, 2, 2), "depths": (1, 1, 2)}
    peer = module.QKFormer(2, num_classes=10, **shape, tau=2.0, detach_reset=True)
    stem = peer.patch_embed1
    stem.pool1, stem.bn2, stem.lif2 = nn.Identity(), nn.Identity(), nn.Identity()
    stem.conv2, stem.pool2 = nn.Identity(), nn.Identity()
    stem.conv3 = pytest.importorskip("spikingjelly.activation_based.layer").Conv2d(4, 8, 3, padding=1, step_mode="m")
    stem.shortcut[0].stride = (1, 1)
    links = [(ours.conv1, stem.conv1), (ours.bn1, stem.bn1)]
    links += [(ours.stem.conv, stem.conv3), (ours.stem.bn, stem.bn3)]
    links += [(ours.stem_shortcut.conv, stem.shortcut[0]), (ours.stem_shortcut.bn, stem.shortcut[1])]
    for i, theirs in ((1, peer.patch_embed2), (2, peer.patch_embed3)):
        embed = ours.stages[i][0]
        links += [(embed.conv_neuron.conv, theirs.conv1), (embed.conv_neuron.bn, theirs.bn1)]
        links += [(embed.conv, theirs.conv2), (embed.bn, theirs.bn2)]
        links += [(embed.shortcut.conv, theirs.shortcut[0]), (embed.shortcut.bn, theirs.shortcut[1])]
        theirs.bn2, theirs.pool = nn.Sequential(theirs.bn2, theirs.pool), nn.Identity()
    for stage, blocks in zip(ours.stages, (peer.stage1, peer.stage2, peer.stage3), strict=True):
        for block, theirs in zip(stage[-len(blocks) :], blocks, strict=True):
            links += _links_of_counts(block, theirs)
    return peer, links


def _jelly_maxformer(ours):
    module = pytest.importorskip("spikingjelly.activation_based.model.maxformer")
    peer = module.MaxFormer(2, num_classes=10, embed_dims=64, depths=(1, 1, 2), cifar=True)
    stem = peer.patch_embed1
    links = [(ours.conv1, stem.conv), (ours.bn1, stem.bn)]
    links += [*zip(ours.stem, stem.branch[1:], strict=True), *zip(ours.stem_shortcut, stem.shortcut[1:], strict=True)]
    for i, theirs in ((1, peer.patch_embed2), (2, peer.patch_embed3)):
        embed = ours.stages[i][0]
        links += [(getattr(embed, name), getattr(theirs, name)) for name in ("conv1", "bn1", "conv2", "bn2")]
        links += zip(embed.shortcut, theirs.shortcut[:2], strict=True)
    links += _links_of_mlp(ours.stages[0][0], peer.stage1[0])
    (theirs,), block = peer.stage2, ours.stages[1][1]
    links += [(block.mixer.conv, theirs.dwconv), (block.mixer.bn, theirs.bn), *_links_of_mlp(block, theirs.mlp)]
    for block, theirs in zip(ours.stages[2][1:], peer.stage3, strict=True):
        for i, name in enumerate("qkv"):
            part, rows = getattr(block.mixer.qkv, name), slice(i * 64, (i + 1) * 64)
            links += [(part.conv, theirs.attn.qkv[0], rows), (part.bn, theirs.attn.qkv[1], rows)]
        links += zip((block.mixer.proj, block.mixer.bn), theirs.attn.proj, strict=True)
        links += _links_of_mlp(block, theirs.mlp)
    return peer, links


JELLY = {
    "spikformer": _jelly_spikformer,
    "sdt": _jelly_sdt,
    "qkformer": _jelly_qkformer,
    "maxformer": _jelly_maxformer,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_spikingjelly(family):
    """Logits and gradients of the input and of every parameter, in float64 and evaluation mode."""
    ours = lively(small(family, surrogate="sigmoid"))
    peer, links = JELLY[family](ours)
    links = [*links, (ours.fc, peer.head)]
    peer.double().eval()
    ours.eval()
    with torch.no_grad():
        for conv in (m for m in peer.modules() if isinstance(m, nn.Conv1d | nn.Conv2d) and m.bias is not None):
            conv.bias.zero_()  # in front of normalisations: ours has none
        for own, other, *rows in links:
            for name, value in own.state_dict().items():
                part = other.state_dict()[name]
                part = part[rows[0]] if rows and part.dim() else part
                part.copy_(value.view(part.shape))
    assert {id(own) for own, *_ in links} == {
        id(m) for m in ours.modules() if m.state_dict() and not list(m.children())
    }

    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    y, z = x.detach().clone().requires_grad_(), x
    spikes = {}
    for key, module in ours.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, i, o, key=key: spikes.update({key: o.mean().item()}))
    logits = ours(y)
    theirs = peer(z)
    theirs = theirs.mean(0) if family == "spikformer" else theirs
    assert all(0.005 < rate < 0.95 for rate in spikes.values()), spikes
    torch.testing.assert_close(logits, theirs, rtol=1e-9, atol=1e-9)
    target = torch.arange(2)
    (F.cross_entropy(100 * logits, target) + F.cross_entropy(100 * theirs, target)).backward()
    torch.testing.assert_close(y.grad, z.grad, rtol=1e-9, atol=1e-9)
    for own, other, *rows in links:
        for name, parameter in own.named_parameters():
            grad = getattr(other, name).grad
            grad = (grad[rows[0]] if rows else grad).view(parameter.shape)
            assert parameter.grad.abs().max() > 1e-6
            torch.testing.assert_close(parameter.grad, grad, rtol=1e-9, atol=1e-9)


SCALED = {
    "spikformer": ["position.conv", "stages.?.0.attn.proj.conv", "stages.?.0.fc2.conv"],
    "sdt": ["stages.?.0.mixer.[qkv].conv", "stages.?.0.mixer.proj", "stages.?.0.fc1.conv"],
    "qkformer": ["stages.?.?.attn.proj.conv", "stages.?.?.fc2.conv"],
    "maxformer": [
        *("stages.1.1.mixer.conv", "stages.?.?.fc1.conv"),
        *("stages.2.?.mixer.qkv.[qkv].conv", "stages.2.?.mixer.proj"),
    ],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_scaled_layers_map_spikes_to_spikes(family):
    """Inside attention and MLPs, and convolutions of 3 x 3, equal channels and stride 1; not those that see counts."""
    model, seen = small(family, scaling="causal_trace"), {}
    scaled = {key for key, m in model.named_modules() if getattr(m, "scaling", None)}
    matched = {name: [key for key in scaled if fnmatchcase(key, name)] for name in SCALED[family]}
    assert all(matched.values())
    assert {key for keys in matched.values() for key in keys} == scaled
    for key in scaled:
        hook = lambda m, inputs, key=key: seen.update({key: set(inputs[0].unique().tolist())})  # noqa: E731
        model.get_submodule(key).register_forward_pre_hook(hook)
    lively(model)
    assert seen.keys() == scaled
    assert all(values <= {0.0, 1.0} for values in seen.values())


def test_attention_by_loops():
    """Neurons fed by q kT v / 8 head by head, tokens by channels as the papers write it."""
    model = lively(small("spikformer")).eval()
    part, seen = model.stages[0][0].attn.qkv, {}
    for name in "qkv":
        getattr(part, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    part.lif.register_forward_pre_hook(lambda m, inputs: seen.update(current=inputs[0]))
    model(torch.randn(1, 3, 16, 16, dtype=torch.float64))
    for image in range(2):
        for head in range(2):
            rows = slice(16 * head, 16 * head + 16)
            q, k, v = (seen[name][image, rows].flatten(1).T for name in "qkv")
            expected = (q @ k.T) @ v / 8
            assert expected.max() > 0
            assert torch.equal(seen["current"][image, rows].flatten(1).T, expected)
