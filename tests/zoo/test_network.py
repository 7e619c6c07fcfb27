"""Every architecture of the registry: one test a property, parametrised over `zoo.list_models`.

Small networks are run through everything. What the full-size ones, which have the same code, do is slow; that each can
run is in the catalogue (test_command.py).
"""

import copy
import doctest
import functools
import hashlib
import json
import sys
import types
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from conftest import awake, run_code, tiny
from timm.data import resolve_data_config
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

import zoo
from zoo.errors import ZooError
from zoo.names import plain_name
from zoo.neurons.lif import LIF
from zoo.registry import GS
from zoo.scaling.layers import SpikingConv2d, SpikingLinear

PLAIN = [name for name in zoo.list_models() if plain_name(name) == name]
GOLDEN = Path(__file__).parent / "golden" / "models.json"


@functools.cache
def params(name):
    with torch.device("meta"):
        return sum(p.numel() for p in zoo.create_model(name).parameters())


SMALL = [name for name in PLAIN if params(name) < 3e5]  # at least one per family, see test_families
BIG = [name for name in PLAIN if name not in SMALL]
FAMILIES = {type(zoo.create_model(name)).__name__: name for name in SMALL}
EVERY_LAYER = {"name": "causal_trace", "layers": "all"}
POOLED = ["conv1", "fc"]  # the image, and means over positions
REAL_INPUTS = {  # by family, wildcards over the layers that receive more than zeros and ones
    "SResNet": POOLED,
    "SResNet hidden": ["conv1", "fc_hidden"],
    "SEWResNet ADD": [*POOLED, "stages.0.[!0]*.conv1", "stages.[!0]*.conv1", "stages.[!0]*.shortcut.0"],  # counts
    "SEWResNet AND": POOLED,
    "SEWResNet IAND": POOLED,
    "MSResNet": [*POOLED, "stages.*.shortcut.0"],  # currents
    "MaxResNet": [*POOLED, "stages.*.shortcut.0"],
    "SVGG": POOLED,
    "SVGG hidden": ["conv1"],
    "PLIFNet hidden": ["conv1"],
    "Spikformer": [*POOLED, "stages.*.qkv.?.conv", "stages.*.fc1.conv"],  # counts
    "QKFormer": [
        *(*POOLED, "stages.*.0.conv_neuron.conv", "stages.*.0.shortcut.conv"),
        *("stages.*.attn.?.conv", "stages.*.qkv.?.conv", "stages.*.fc1.conv"),
    ],
    "SpikeDrivenTransformer": ["conv1"],
    "MaxFormer": ["conv1"],
}


def images(batch=2):
    return torch.randn(batch, 3, 32, 32)


def loss(model, x):
    return F.cross_entropy(model(x), torch.arange(len(x)))


def test_the_whole_list_is_there():
    for name in PLAIN:
        assert f"{name}_gs" in zoo.list_models()
        assert timm.is_model(name)
    assert zoo.is_model("sresnet19_gs.some_tag")
    assert not zoo.is_model("resnet18")
    with torch.device("meta"):
        assert {type(zoo.create_model(name)).__name__ for name in PLAIN} == set(FAMILIES)


@pytest.mark.parametrize("name", SMALL)
def test_another_number_of_time_steps(name, monkeypatch):
    """`set_timesteps` gives the network that `timesteps` creates."""
    monkeypatch.setenv("SNNZOO_KERNEL", "reference")  # a kernel is built anew for another number of steps
    model, other = (awake(zoo.create_model(name, timesteps=t)) for t in (1, 2))
    other.load_state_dict(model.state_dict())
    x = images()
    before = model(x)
    model.set_timesteps(2)
    assert model.timesteps == 2
    assert all(vars(module).get("timesteps", 2) == 2 for module in model.modules())
    assert torch.equal(model(x), other(x))
    assert model.model_args == other.model_args
    model.reset_classifier(3)
    assert model(x, per_step=True).shape == (2, 2, 3)
    other.set_timesteps(1)
    assert torch.equal(other(x), before)


@pytest.mark.parametrize("learnt", [{"norm": "tebn"}, {"neuron": "glif"}, {"neuron": "psn"}])
def test_a_learnt_number_of_time_steps_is_fixed(learnt):
    model = zoo.create_model("sresnet19_w16", timesteps=2, **learnt)
    model.set_timesteps(2)
    with pytest.raises(ZooError, match="each of 2 time steps: cannot run 3"):
        model.set_timesteps(3)


def test_the_other_published_form_of_sresnet19():
    """That of tdBN and TET: a narrower stem, a hidden layer in the head."""
    model = zoo.create_model("sresnet19_w16", num_classes=100)
    assert (model.model_args["stem"], model.model_args["hidden"]) == (16, 0)
    assert {name for name in model.state_dict() if name.startswith("fc")} == {"fc.weight", "fc.bias"}
    with torch.device("meta"):
        other = zoo.create_model("sresnet19", stem=64, hidden=256)
    assert (other.conv1.out_channels, other.fc_hidden.out_features) == (64, 256)
    assert sum(p.numel() for p in other.parameters()) == 12_630_858
    for wrong in ({"hidden": -1}, {"stem": 0}, {"depths": [1, 1, 1]}, {"widths": [1, 1]}):
        with pytest.raises(ZooError, match=next(iter(wrong))):
            zoo.create_model("sresnet19_w16", **wrong)


def test_a_checkpoint_with_another_stem_and_head_loads_by_its_name(tmp_path, monkeypatch):
    model = zoo.create_model("sresnet19_w16", stem=8, hidden=32, timesteps=2)
    zoo.save_checkpoint(tmp_path / "sresnet19_w16.t2_test", model, tag="t2_test", data_cfg={})
    load = sys.modules["zoo.load"]  # by attribute, zoo.load is its function
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    monkeypatch.setattr(load, "get_pretrained_cfg", lambda name: types.SimpleNamespace(tag="t2_test"))
    again = zoo.create_model("sresnet19_w16", pretrained=True)
    assert torch.equal(again.conv1.weight, model.conv1.weight)
    assert (again.model_args["stem"], again.model_args["hidden"], again.timesteps) == (8, 32, 2)


def test_scaling_that_reaches_no_layer_is_refused():
    class StemAlone(zoo.SpikingNetwork):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.make_stem(4)
            self.finish(4)

    with pytest.raises(ZooError, match="reaches no layer of StemAlone"):
        StemAlone(scaling="final_trace")


def test_biases_of_each_time_step_do_not_decay():
    names = zoo.create_model("sresnet19_w16", neuron="psn").no_weight_decay()
    assert {"lif1.bias", "fc.bias"} <= names
    assert "lif1.weight" not in names


def digest(name):
    """Of the keys and shapes of a network's state_dict."""
    with torch.device("meta"):
        state = zoo.create_model(name).state_dict()
    text = json.dumps({key: list(value.shape) for key, value in state.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_golden_keys_and_shapes():
    """Renaming a key breaks every published checkpoint: change golden/models.json only on purpose."""
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == set(PLAIN)
    assert {name: digest(name) for name in PLAIN} == golden


@pytest.mark.parametrize(("batch", "timesteps"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("name", [*SMALL, "svgg9_w16"])  # of whose form, wide layers with norms, none is small
def test_forward(name, batch, timesteps):
    model = zoo.create_model(name, timesteps=timesteps).eval()
    x = images(batch)
    with torch.no_grad():
        y, per_step = model(x), model(x, per_step=True)
    assert y.shape == (batch, 10)
    assert per_step.shape == (timesteps, batch, 10)
    assert torch.equal(per_step.mean(0), y)  # deterministic, and no state stays behind
    assert torch.isfinite(y).all()


def real_inputs(model):
    """Names of the layers whose input is not binary."""
    words = [
        type(model).__name__,
        "hidden" if getattr(model, "fc_hidden", None) else "",
        model.model_args.get("connect"),
    ]
    patterns = REAL_INPUTS[" ".join(word for word in words if word)]
    layers = [key for key, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return {key for key in layers if any(fnmatchcase(key, pattern) for pattern in patterns)}


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        *((name, {}) for name in SMALL),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in BIG),
        ("sresnet19_w16", {"stem": 8, "hidden": 32}),
        *(("sew_resnet18_w16", {"connect": connect}) for connect in ("AND", "IAND")),
    ],
)
def test_layers_receive_only_spikes_but_for_the_listed_and_all_are_alive(name, kwargs):
    """And the listed receive something else: the list is neither too short nor too long."""
    model, binary, rates = zoo.create_model(name, timesteps=2, **kwargs), {}, {}
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            look = lambda m, i, key=key: binary[key].append(bool(((i[0] == 0) | (i[0] == 1)).all()))  # noqa: E731
            binary[key] = []
            module.register_forward_pre_hook(look)
        if isinstance(module, LIF):
            note = lambda m, i, o, key=key: rates.update({key: o.mean().item()}) if m.training else None  # noqa: E731
            module.register_forward_hook(note)
    modes = [True, False] if name in SMALL else [True]
    for training in modes:
        with torch.no_grad():
            model.train(training)(images(4))
    assert {len(seen) for seen in binary.values()} == {len(modes)}
    assert {key for key, seen in binary.items() if not all(seen)} == real_inputs(model)
    assert all(0.001 < rate < 0.95 for rate in rates.values()), rates


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow) for name in PLAIN]
    + [f"{name}_gs" for name in SMALL],
)
def test_a_training_step_changes_every_parameter(name):
    model = zoo.create_model(name, timesteps=2 if name in BIG else 4).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss(model, images(4 if name in BIG else 8)).backward()
    optimizer.step()
    same = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not same


def scaled_layers(model):
    return {f"{key}.weight" for key, module in model.named_modules() if getattr(module, "scaling", None)}


@pytest.mark.parametrize("name", SMALL)
def test_twins_share_weights_logits_and_differ_in_scaled_gradients_only(name):
    """With strength 0 in none. "all" shows that each layer which can be scaled meets the neurons behind it."""
    plain, twin = zoo.create_model(name, timesteps=2), zoo.create_model(f"{name}_gs", timesteps=2)
    twin.load_state_dict(awake(plain).state_dict(), strict=True)
    x = images(4)
    assert torch.equal(plain.eval()(x), twin.eval()(x))
    assert plain.model_args["scaling"] == "none"
    assert twin.model_args["scaling"] == GS
    zero, wide = (zoo.create_model(name, timesteps=2, scaling=EVERY_LAYER | {"alpha": alpha}) for alpha in (0.0, 0.7))
    gradients = []
    for model in (plain, twin, zero, wide):
        model.load_state_dict(plain.state_dict())
        loss(model.double().train(), x.double()).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    none, *changed = ({key for key in found if not torch.equal(found[key], gradients[0][key])} for found in gradients)
    assert none == set()
    assert changed == [scaled_layers(twin), set(), scaled_layers(wide)]
    assert scaled_layers(twin)
    layers = {f"{key}.weight" for key, m in wide.named_modules() if isinstance(m, SpikingConv2d | SpikingLinear)}
    assert scaled_layers(wide) == layers


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip_in_another_layout_and_precision(name):
    model, other = (awake(zoo.create_model(name, timesteps=2).double()) for _ in range(2))
    x = images().double()
    assert not torch.equal(model(x), other(x))
    other.load_state_dict(model.state_dict())
    y = model(x)
    assert torch.equal(other(x), y)
    last = other.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, y, rtol=1e-9, atol=1e-9)
    assert torch.equal(copy.deepcopy(model)(x), y)
    rebuilt = zoo.create_model(name, **json.loads(json.dumps(model.model_args))).double().eval()
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt(x), y)


@pytest.mark.parametrize("name", SMALL)
def test_autocast(name):
    model = zoo.create_model(f"{name}_gs", timesteps=2).train()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(model, images(4))
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_timms_contract(name):
    model = awake(zoo.create_model(name, timesteps=2))
    x = images()
    features = model.forward_features(x)
    assert features.shape[:2] == (4, model.num_features)
    y = model(x)
    assert torch.equal(model.forward_head(features), y)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert torch.equal(model.forward_head(features, per_step=True), model(x, per_step=True))
    steps = model.forward_head(features, pre_logits=True, per_step=True)
    assert steps.shape == (2, 2, model.head_hidden_size)
    assert torch.equal(steps.mean(0), model.forward_head(features, pre_logits=True))
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, features)
    assert len(maps) == len(model.stages) == len(model.feature_info)
    for info, rates in zip(model.feature_info, maps, strict=True):
        assert rates.shape == (2, info["num_chs"], 32 // info["reduction"], 32 // info["reduction"])
    steps = model.forward_intermediates(x, indices=[-1], output_fmt="TNCHW", intermediates_only=True, stop_early=True)
    assert torch.equal(steps[0].mean(0), maps[-1])
    only = timm.create_model(name, features_only=True, timesteps=2).eval()
    only.model.load_state_dict(model.state_dict(), strict=False)
    for a, b in zip(only(x), maps, strict=True):
        assert torch.equal(a, b)
    first = timm.create_model(name, features_only=True, timesteps=2, out_indices=(0,))
    timm.create_model(name, features_only=True, feature_cls="getter")  # as timm calls it
    with pytest.raises(ZooError, match="feature_cls 'hook': networks of the zoo have 'getter' alone"):
        timm.create_model(name, features_only=True, feature_cls="hook")
    assert len(first.model.stages) == 1
    for network in (only.train(), first):  # which DistributedDataParallel demands
        sum(rates.sum() for rates in network(x)).backward()
        assert not [k for k, p in network.named_parameters() if p.grad is None]
    assert only.feature_info.channels() == [info["num_chs"] for info in model.feature_info]
    with pytest.raises(ZooError, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NLC")
    count = len(maps)
    for bad in ([count], (-count - 1,), (), 0, count + 1, -1, ["0"], "0", (0.0,), [True]):
        with pytest.raises(ZooError, match=f"{count} stages"):
            model.forward_intermediates(x, indices=bad)
    with pytest.raises(ZooError, match=f"{count} stages"):
        timm.create_model(name, features_only=True, out_indices=[count])
    some = timm.create_model(name, features_only=True, out_indices=(-1, 0))
    assert some.feature_info.channels() == [model.feature_info[i]["num_chs"] for i in (-1, 0)]

    groups = param_groups_layer_decay(model, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    scales = {p: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales[model.conv1.weight] < scales[next(p for k, p in model.named_parameters() if k.startswith("fc"))]
    assert len(set(scales.values())) > len(model.stages)

    half = copy.deepcopy(model).to(torch.bfloat16)
    half.reset_classifier(7)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    model.reset_classifier(7, global_pool="avg")
    assert model(x).shape == (2, 7)
    for bad in ((-1,), (2.5,), (7, "max")):
        with pytest.raises(ZooError, match=r"num_classes|global_pool"):
            model.reset_classifier(*bad)
    model.reset_classifier(0, "avg")
    assert model(x).shape == (2, model.head_hidden_size)
    other = timm.create_model(name, num_classes=0, in_chans=1, timesteps=1).eval()
    assert other(torch.randn(2, 1, 32, 32)).shape == (2, other.head_hidden_size)
    assert other.pretrained_cfg["input_size"][0] == 1
    for shape in ((3, 32, 32), (2, 1, 32, 32), (2, 4, 3, 32, 32)):
        with pytest.raises(ZooError, match=r"\[B, 3, H, W\]"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("name", FAMILIES.values())
def test_checkpointed_gradients_are_the_same(name):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = zoo.create_model(name, timesteps=2, scaling=EVERY_LAYER).double().train()
        model.set_grad_checkpointing(checkpointing)
        with zoo.SpikeCounter(model) as counter:  # what is computed again counts once
            loss(model, torch.randn(2, 3, 32, 32, dtype=torch.float64)).backward()
        spikes = torch.tensor(counter.summary()["spikes_per_step"])
        gradients.append([*(p.grad for p in model.parameters()), *model.buffers(), spikes])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "svgg9_w16"])
def test_compiles_into_one_graph(name):
    torch._dynamo.reset()
    model = zoo.create_model(name, timesteps=2, scaling=EVERY_LAYER).train()
    x, copied = images(), copy.deepcopy(model)
    outputs = [network(x) for network in (torch.compile(copied, fullgraph=True, backend="eager"), model)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for logits in outputs:
        F.cross_entropy(logits, torch.arange(len(x))).backward()
    for p, q in zip(copied.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


def test_networks_of_other_numbers_compile_into_one_graph_each():
    torch._dynamo.reset()
    for width in (1.0, 2.0, 0.5):
        how = {"neuron": {"name": "lif", "decay": width / 4}, "surrogate": {"name": "triangle", "width": width}}
        model, x = tiny(**how).train(), images()
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
        for network in (compiled, model):
            loss(network, x).backward()
        for p, q in zip(compiled.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


def test_a_convolution_takes_the_bias_of_a_folded_normalisation():
    model = tiny().train()
    model(images())
    block, x = model.eval().stages[0][0], (torch.rand(4, 4, 8, 8) < 0.2).float()
    folded = fuse_conv_bn_eval(block.conv1, block.bn1)
    torch.testing.assert_close(folded(x), block.bn1(block.conv1(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaling", ["none", {"name": "channel", "every": 2}])
def test_compiled_and_checkpointed_it_is_the_same(scaling):
    torch._dynamo.reset()
    model = tiny(scaling=scaling).train()
    copied, x = copy.deepcopy(model), images()
    copied.set_grad_checkpointing()
    compiled = torch.compile(copied, backend="eager")
    for _ in range(2):
        for network in (compiled, model):
            network.zero_grad()
            loss(network, x).backward()
        for p, q in zip(copied.parameters(), model.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
    for p, q in zip(copied.buffers(), model.buffers(), strict=True):
        assert torch.equal(p, q)


OTHERS = [*({"neuron": name} for name in ("if", "plif", "clif", "glif", "psn")), {"norm": "tdbn"}, {"norm": "tebn"}]


@pytest.mark.parametrize("name", FAMILIES.values())
@pytest.mark.parametrize("other", OTHERS, ids=lambda other: next(iter(other.values())))
def test_other_neurons_and_norms(name, other):
    model = zoo.create_model(f"{name}_gs", timesteps=2, **other).train()
    loss(model, images()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_blocks_start_near_the_identity_at_any_threshold(threshold):
    """Neurons behind a shortcut repeat its spikes, with and without a branch that is normalised by anything."""
    torch.manual_seed(0)
    neuron = {"name": "if", "threshold": threshold}
    for norm in ("bn", {"name": "tdbn", "alpha": 0.5}):
        block = zoo.create_model("sresnet19_w16", timesteps=1, neuron=neuron, norm=norm).train().stages[0][0]
        spikes = torch.bernoulli(torch.full((8, 16, 16, 16), 0.3))
        assert (block(spikes) == spikes).float().mean() > 0.93


@pytest.mark.parametrize("name", ["ms_resnet19_w16", "spikformer_2_64"])
def test_what_starts_lower_or_higher_starts_so_at_any_weight_of_tdbn(name):
    started = [zoo.create_model(name, timesteps=1, norm={"name": "tdbn", "alpha": a}) for a in (1.0, 0.5)]
    if name.startswith("ms"):
        assert [model.stages[0][0].bn2.weight[0].item() for model in started] == pytest.approx([0.2, 0.1])
    else:  # 1.5 deviations below the threshold
        qkv = [next(m for m in model.modules() if type(m).__name__ == "QKV").q for model in started]
        assert [((2 - q.bn.bias[0]) / q.bn.weight[0]).item() for q in qkv] == pytest.approx([1.5, 1.5])


@pytest.mark.parametrize("name", FAMILIES.values())
@pytest.mark.parametrize("encoding", ["rate", "latency", "frames"])
def test_other_encodings(name, encoding):
    model = zoo.create_model(name, timesteps=4, encoding=encoding).eval()
    shape = (2, 4, 3, 32, 32) if encoding == "frames" else (2, 3, 32, 32)
    assert model(torch.rand(shape)).shape == (2, 10)
    assert resolve_data_config(model=model)["std"] == (1, 1, 1)  # no transform of timm's may normalise


@pytest.mark.parametrize("name", FAMILIES.values())
def test_larger_images(name):
    model = zoo.create_model(name, timesteps=1, stem_stride=2).eval()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(ZooError, match="stem_stride must be an integer from 1 to"):
        zoo.create_model(name, stem_stride=0)


BY_HAND = """
import zoo
from zoo.registry import build, make_cfgs
from zoo.models.sresnet import SResNet

default_cfgs = make_cfgs(["my_snn"])

@zoo.register_model
def my_snn(pretrained=False, **kwargs):
    "Mine."
    return build(SResNet, "my_snn", pretrained, depths=(1,), widths=(8,), stem=8, **kwargs)
"""


def test_features_say_how_images_are_to_be_prepared():
    how = {"encoding": "rate", "in_chans": 1, "features_only": True}
    cfg = zoo.create_model("sresnet19_w16", **how).pretrained_cfg
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ((1, 32, 32), (0.0,), (1.0,))


def test_replicas_do_not_answer_what_would_be_joined_wrongly():
    plain, scaled = (zoo.create_model(name, timesteps=2) for name in ("sresnet19_w16", "sresnet19_w16_gs"))
    plain._is_replica = scaled._is_replica = True  # as DataParallel makes them
    plain(images())
    scaled.eval()(images())
    for ask in (lambda: plain(images(), per_step=True), lambda: scaled.train()(images())):
        with pytest.raises(ZooError, match="use torchrun"):
            ask()


def test_a_repeated_pass_starts_from_what_the_first_one_started_from():
    """Also what a layer of one's own keeps in a buffer."""

    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            self.passes += 1
            return x * self.passes

    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = tiny().train()
        model.stages[0].append(Drifting())
        model.set_grad_checkpointing(checkpointing)
        loss(model, torch.randn(2, 3, 32, 32)).backward()
        assert model.stages[0][-1].passes == 1
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_learnt_threshold_builds_every_family(registered_here_only):
    class Adapting(LIF):
        spec_keys: ClassVar = ["threshold"]

        def __init__(self, timesteps=4, *, threshold=1.0, **others):
            super().__init__(timesteps, **others)
            self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    zoo.register_neuron("adapting")(Adapting)
    for name in FAMILIES.values():
        if not name.startswith("plif_net"):  # which builds its own
            zoo.create_model(name, timesteps=2, neuron="adapting", norm="tdbn")


def test_a_model_of_ones_own(tmp_path):
    """A family as the docstring shows it, and one function as timm's users write it."""
    example = doctest.DocTestParser().get_examples(zoo.register_family.__doc__)
    (tmp_path / "family.py").write_text("".join(line.source for line in example))
    (tmp_path / "by_hand.py").write_text(BY_HAND)
    code = """
import zoo, timm, torch
for file in ("family.py", "by_hand.py", "family.py"):
    zoo.load_plugin(file)
print(zoo.list_models("my_*"), timm.is_model("my_net_gs"))
for name in ("my_net", "my_net_gs", "my_snn"):
    print(name, list(zoo.create_model(name, timesteps=2)(torch.randn(2, 3, 32, 32)).shape))
print(timm.create_model("my_snn", scaling="window").model_args["scaling"])
print(*(sum(getattr(m, "scaling", None) is not None for m in zoo.create_model(name).modules())
    for name in ("my_net", "my_net_gs")))
print(zoo.model_info("my_net")["description"], zoo.model_info("my_net")["params"])
"""
    done = run_code(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['my_net', 'my_net_gs', 'my_snn'] True",
        *(f"{name} [2, 10]" for name in ("my_net", "my_net_gs", "my_snn")),
        "window",
        "0 1",
        f"A small network. {9 * 3 * 32 + 9 * 32 * 32 + 4 * 32 + 330}",
    ]
