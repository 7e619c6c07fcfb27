"""Every preset and control on every kind of convolution, against loops over synapses and time steps in float64."""

import pytest
import torch
from brute_force import KINDS, PRESETS, K, by_hand, example, fitting, synapse_sums
from torch.nn import functional as F

import zoo
from zoo.errors import ZooError
from zoo.scaling import rules
from zoo.scaling.layers import Geometry, PostSpikes, SpikingConv2d, weight_gradient
from zoo.scaling.rules import PRESETS as RULES
from zoo.scaling.rules import register_scaling, window_terms
from zoo.scaling.spec import Scaling, resolve_scaling


def run(rule, kind, pre, post, error):
    """Weight and input gradient of a scaled layer, with given spikes on both sides and a given error at its output."""
    c_in, c_out, size, stride, padding, dilation, groups = kind
    torch.manual_seed(1)
    conv = SpikingConv2d(
        c_in, c_out, size, stride, padding, dilation=dilation, groups=groups, timesteps=len(pre), scaling=rule
    ).to(pre.dtype)
    x, link = pre.flatten(0, 1).clone().requires_grad_(), PostSpikes()
    y = conv(x, link)
    (y * error.flatten(0, 1) + 0 * link.tie(post.flatten(0, 1))).sum().backward()
    return conv, x


CASES = [
    *((KINDS[kind], 3, 2, (0.4, 0.4)) for kind in KINDS),
    *((KINDS["3x3"], *form, (0.4, 0.4)) for form in ((1, 1), (1, 2), (4, 1))),  # one time step, one image
    *((KINDS["3x3"], 2, 2, rates) for rates in ((0, 0.5), (0.5, 0), (0, 0), (1, 1), (1, 0.5))),  # silent, saturated
]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("kind", "steps", "batch", "rates"), CASES, ids=str)
def test_presets_equal_brute_force(name, kind, steps, batch, rates):
    kind = fitting(kind, name)
    pre, post, error = example(kind, steps, batch, rates)
    conv, x = run(Scaling(name, 0.7), kind, pre, post, error)
    gradient, passed = by_hand(name, pre, post, error, 0.7, kind)
    torch.testing.assert_close(conv.weight.grad, gradient, rtol=1e-10, atol=1e-10)
    reference = x.detach().clone().requires_grad_()
    y = F.conv2d(reference, conv.weight.detach(), None, conv.stride, conv.padding, conv.dilation, conv.groups)
    (y * passed.flatten(0, 1)).sum().backward()
    torch.testing.assert_close(x.grad, reference.grad, rtol=1e-10, atol=1e-10)


def test_depression_alone_is_evidence():
    """Post spikes come first, so that no entry of D is above 0."""
    kind = KINDS["3x3"]
    pre, post, error = example(kind, 2, 2)
    pre[0] = post[1] = 0
    expected, _ = by_hand("ltp_ltd", pre, post, error, 0.7, kind)
    scaled, plain = (run(rule, kind, pre, post, error)[0].weight.grad for rule in (Scaling("ltp_ltd", 0.7), None))
    torch.testing.assert_close(scaled, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(scaled, plain)


@pytest.mark.parametrize("of", PRESETS)
def test_controls_keep_the_shrink_and_drop_the_information(of):
    kind = fitting(KINDS["3x3"], of)
    pre, post, error = example(kind, 3, 4)
    factors = {}
    for name in (of, "mean_scale", "permuted"):
        seen = []
        rule = Scaling(name, 0.7, of=None if name == of else of)

        class Watched(Scaling):
            def factor(self, *spikes, seen=seen):
                seen.append(super().factor(*spikes))
                return seen[-1]

        run(Watched(*rule), kind, pre, post, error)
        factors[name] = seen[0]
    exact, mean, permuted = factors[of], factors["mean_scale"], factors["permuted"]
    for t in range(len(exact)):
        torch.testing.assert_close(mean[t], torch.full_like(mean[t], float(exact[t].mean())), rtol=1e-12, atol=0)
        assert torch.equal(permuted[t].flatten().sort().values, exact[t].flatten().sort().values)
    assert not torch.equal(permuted, exact)


def test_each_step_is_permuted_by_itself():
    same = rules.Rule(lambda spikes, alpha: torch.arange(54.0).expand(3, 54))
    permuted = rules._permuted(same, None, 0.7)
    assert not torch.equal(permuted[0], permuted[1])
    assert not torch.equal(permuted[1], permuted[2])


@pytest.mark.parametrize("of", ["causal_trace", "channel"])
def test_norm_scale_keeps_the_size_of_the_step_and_the_plain_direction(of):
    kind = KINDS["3x3"]
    pre, post, error = example(kind, 3, 4)
    plain, exact, control = (
        run(rule, kind, pre, post, error)[0].weight.grad
        for rule in (None, Scaling(of, 0.7), Scaling("norm_scale", 0.7, of=of))
    )
    torch.testing.assert_close(control.norm(), exact.norm(), rtol=1e-12, atol=0)
    torch.testing.assert_close(control / control.norm(), plain / plain.norm(), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(exact / exact.norm(), plain / plain.norm())


@pytest.mark.parametrize("name", ["window", "mean_preserving", "channel"])
@pytest.mark.parametrize("steps", [1, 3])
def test_evidence_in_few_terms(name, steps):
    """All terms are the exact evidence; one term is K of two weighted sums over time."""
    kind = KINDS["3x3"]
    pre, post, error = example(kind, steps, 4)
    exact, all_terms, one = (
        run(Scaling(name, 0.7, rank=rank), kind, pre, post, error)[0].weight.grad for rank in (None, steps, 1)
    )
    torch.testing.assert_close(all_terms, exact, rtol=1e-10, atol=1e-10)
    terms = torch.tensor(window_terms(steps, K)).double()
    response = torch.tensor([[K ** (t - i) if t >= i else 0.0 for i in range(steps)] for t in range(steps)]).double()
    torch.testing.assert_close(terms.T @ terms, response.T @ response, rtol=1e-6, atol=1e-6)
    assert (terms.norm(dim=1).diff() <= 0).all()
    if steps > 1 and name != "window":
        evidence = synapse_sums(*(sum(w * x for w, x in zip(terms[0], z, strict=True)) for z in (pre, post)), kind)
        mean = evidence.flatten(1).mean(1)[:, None, None, None] if name == "channel" else evidence.mean()
        plain = run(None, kind, pre, post, error)[0].weight.grad
        torch.testing.assert_close(one, (0.3 + 0.7 * evidence / mean) * plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "rank"),
    [*((name, None) for name in PRESETS if RULES[name].counts), *((name, 1) for name in PRESETS if RULES[name].rank)],
)
def test_spikes_of_one_byte_each(name, rank, monkeypatch):
    """Where a layer keeps its spikes so, sums over time are taken by a kernel of their own."""
    pre, post, _ = (z.float() for z in example(fitting(KINDS["3x3"], name), 3, 2))
    conv = SpikingConv2d(pre.shape[2], post.shape[2], 3, padding=1, timesteps=3)
    rule, operator = Scaling(name, 0.7, rank=rank), weight_gradient(conv.weight, Geometry.of(conv))
    expected = rule.factor(pre, post, operator, torch.float32)
    for kernel in ("auto", "reference"):
        monkeypatch.setenv("SNNZOO_KERNEL", kernel)
        got = rule.factor(pre.to(torch.int8), post.to(torch.int8), operator, torch.float32)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_shuffled_takes_another_images_post_spikes():
    kind = KINDS["3x3"]
    pre, post, error = example(kind, 2, 1)
    one, _ = run(Scaling("shuffled", 0.7, of="causal_trace"), kind, pre, post, error)
    exact, _ = run(Scaling("causal_trace", 0.7), kind, pre, post, error)
    assert torch.equal(one.weight.grad, exact.weight.grad)  # of one image there is no other
    pre, post, error = example(kind, 2, 6)
    several, _ = run(Scaling("shuffled", 0.7, of="causal_trace"), kind, pre, post, error)
    exact, _ = run(Scaling("causal_trace", 0.7), kind, pre, post, error)
    assert not torch.allclose(several.weight.grad, exact.weight.grad)


def test_a_rule_of_ones_own(registered_here_only):
    @register_scaling("half", window=True)
    def half(spikes, alpha):
        return spikes.pre.new_full((1, *spikes.operator(spikes.pre[0], spikes.post[0]).shape), 1 - alpha / 2)

    kind = KINDS["3x3"]
    pre, post, error = example(kind, 2, 2)
    plain, _ = run(None, kind, pre, post, error)
    scaled, _ = run(resolve_scaling({"name": "half", "alpha": 1.0}), kind, pre, post, error)
    torch.testing.assert_close(scaled.weight.grad, plain.weight.grad / 2, rtol=1e-12, atol=1e-12)
    assert resolve_scaling({"name": "permuted", "of": "half"}).of == "half"
    with pytest.raises(ZooError, match="permuted"):
        register_scaling("permuted")(lambda spikes, alpha: spikes.pre)
    with pytest.raises(ZooError, match="everywhere"):
        register_scaling("other", "everywhere")
    with pytest.raises(ZooError, match="is no name for a scaling"):
        register_scaling(half)
    with pytest.raises(ZooError, match="function of"):
        register_scaling("other")(3)


@pytest.mark.parametrize("name", ["sresnet19_w16", "svgg11_w8"])
def test_a_rule_reads_the_membrane_potentials_behind_its_layer(name, registered_here_only):
    """Where a convolution's own current is normalised, and pooled (svgg), in front of its neurons."""
    seen = []

    @register_scaling("mine", potential=True)
    def mine(spikes, alpha):
        assert torch.equal(spikes.post, (spikes.potential >= 0).to(spikes.post.dtype))
        seen.append(spikes.potential)
        return spikes.pre.new_ones(len(spikes.pre), 1, 1, 1, 1)

    x = torch.randn(2, 3, 32, 32)
    for spec in ("mine", {"name": "shuffled", "of": "mine"}):
        model = zoo.create_model(name, scaling=spec, timesteps=2, kernel="reference")
        model.train()(x).sum().backward()
    assert len(seen) >= 4
    for spec, word in [({"name": "mine", "every": 2}, "every"), ({"name": "mine", "rank": 1}, "rank")]:
        with pytest.raises(ZooError, match=word):
            resolve_scaling(spec)
    with pytest.raises(ZooError, match="locality 'weight', not 'error'"):
        register_scaling("other", "error", potential=True)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"name": "window", "of": "channel"}, "of"),
        ({"name": "permuted", "of": "permuted"}, "permuted"),
        ({"name": "window", "k": 2}, "2"),
        ({"name": "causal_trace", "rank": 1}, "rank"),
        ({"name": "window", "rank": 0}, "rank"),
        ({"name": "norm_scale", "of": "local"}, "local"),
        ({"name": "none", "alpha": 0.5}, "alpha"),
        ({"name": "window", "every": 2.0}, "scaling every: input should be a valid integer, not 2.0"),
        ({"name": "window", "layers": 3}, "layers"),
        ("causal", "causal_trace"),
        ({"name": "causal_trace", "alpha": True}, "alpha"),
        ({"name": "causal_trace", "a": 0.1}, "alpha"),
        ({"name": "local", "every": 2}, "local scales each error by itself: it takes no every"),
    ],
)
def test_bad_specs_are_named(spec, word):
    with pytest.raises(ZooError, match=word):
        resolve_scaling(spec)


def test_specs_that_leave_things_out():
    assert resolve_scaling(None) is None
    assert resolve_scaling("causal_trace") == Scaling("causal_trace", 0.5)
    assert resolve_scaling({"name": "none"}) is None
    assert resolve_scaling({"name": "mean_scale", "of": None}).of == "causal_trace"


def test_pre_pre_needs_one_shape():
    conv = SpikingConv2d(2, 3, 3, 1, 1, timesteps=2)
    with pytest.raises(ZooError, match="input and output have one shape"):
        conv.scale_by(Scaling("pre_pre", 0.5))
    assert SpikingConv2d(2, 2, 3, 1, 1, timesteps=2, scaling=Scaling("pre_pre", 0.5)).scaling
    model = zoo.create_model("sresnet19_w16", scaling={"name": "pre_pre", "layers": "all"})
    scaled = {name for name, module in model.named_modules() if getattr(module, "scaling", None)}
    assert "stages.0.0.conv2" in scaled
    assert not {"stages.1.0.conv1", "stages.1.0.shortcut.0"} & scaled
    with pytest.raises(ZooError, match="one shape, not SpikingConv2d"):
        zoo.create_model("sresnet19_w16", scaling={"name": "pre_pre", "layers": "stages.1.0.conv1"})


@pytest.mark.parametrize("evidence", [rules._coincidence_of_last_step, rules._coincidence_of_window])
def test_evidence_adds_up_over_processes_that_hold_other_numbers_of_images(evidence):
    pre, post = (torch.rand(3, 4, 2, 8, 8) < rate for rate in (0.2, 0.4))
    operator = weight_gradient(torch.zeros(2, 2, 3, 3).double(), Geometry([1, 1], [1, 1], [1, 1], 1))

    def of(images):
        return evidence(rules.Spikes(pre[:, images].double(), post[:, images].double(), K, operator, torch.double))

    torch.testing.assert_close(of(slice(0, 3)) + of(slice(3, 4)), of(slice(0, 4)))


def test_what_ranks_exchange_is_contiguous(monkeypatch):
    """As NCCL demands: evidence of channels-last convolutions is not; Gloo, with which ranks are tested, takes all."""
    seen = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: seen.append(x.is_contiguous()))
    evidence = torch.rand(2, 3, 3, 3).to(memory_format=torch.channels_last)[None]
    assert not evidence.is_contiguous()
    sizes = {rules._by_max(evidence, 0.5).shape, rules._signed(evidence, 0.5).shape}
    rules.same_norm(evidence, 2 * evidence)
    assert sizes == {evidence.shape}
    assert seen == [True] * 4
