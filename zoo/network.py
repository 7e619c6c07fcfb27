"""What every network of the zoo has beside its layers."""

import contextlib
import copy
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from .errors import ZooError, one_of
from .layers import LayerFactory, stem_conv
from .neurons import SpikingNeuron
from .neurons.base import unfold_steps
from .neurons.encoding import encode, resolve_encoding
from .scaling import NONE, KeptFactor, ScaledLayer, resolve_scaling
from .specs import MOST_CLASSES, Spec, check_integer, check_number, check_timesteps

_HEAD = "fc|final|lif_hidden"
"""With what the names of layers behind the last stage begin."""
_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel, ModelEmaV2, ModelEmaV3)


class SpikingNetwork(nn.Module):
    """Base of the zoo's networks: a pure function from images to logits, time folded into the batch inside.

    The constructor of a subclass calls `make_stem`, `add_stage` for each stage, and `finish`; it builds its layers from
    `self.make`. Where they differ, it defines `forward_stem`, `forward_pre_logits`, `init_weights`.

    Args:
        own_args: keywords of the subclass that are part of what the network is, JSON values, where what they come to is
            not what was said.
        num_classes: 0 for none: the network ends in its features.
        in_chans: channels of the images.
        timesteps: T.
        neuron, surrogate, norm, scaling: a name or an object with its numbers; see the modules of these names.
        encoding: how images become input over time; see `zoo.neurons.encoding`.
        stem_stride: 1 at 32 pixels; 2, 4 or 8 keep larger images affordable (see `stem_conv`).
        dropout: probability of dropping a pooled feature before the head.
        kernel: which code runs the neurons; see `zoo.kernels`. No part of what the network is, so not in model_args.

    Raises:
        ZooError: a value that is out of range or not known.
    """

    conv1: nn.Conv2d
    bn1: nn.Module
    lif1: SpikingNeuron
    stages: nn.ModuleList
    """What runs one after the other."""
    fc: nn.Module
    num_features: int
    head_hidden_size: int
    img_size: int | None = None
    """Side of the only images that it takes; None for any."""
    feature_info: list[dict[str, Any]]
    """timm's: channels (num_chs), reduction and name (module) of the output of every stage."""
    model_args: dict[str, Any]
    """The keywords that rebuild this network, JSON values."""
    pretrained_cfg: dict[str, Any]
    """timm's: input size, mean, std, labels, tag."""
    weights_sha256: str | None = None
    """Of the weights file that was loaded."""
    training_args: dict[str, Any] | None = None
    """The recipe behind the weights that were loaded."""
    loaded_digest: str | None = None
    """`zoo.checkpoint.weights.digest` of the state that was loaded: with another now, it is another network."""
    grad_checkpointing = False

    def __init__(
        self,
        own_args: Mapping[str, Any] | None = None,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        timesteps: int = 4,
        neuron: Spec = "lif",
        surrogate: Spec = "triangle",
        norm: Spec = "bn",
        encoding: str = "direct",
        scaling: Spec | None = None,
        stem_stride: int = 1,
        dropout: float = 0.0,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        timesteps, num_classes = check_timesteps(timesteps), check_integer("num_classes", num_classes, 0, MOST_CLASSES)
        self.make = LayerFactory(timesteps, neuron, surrogate, norm, kernel)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(check_number("dropout", dropout, 0, 0.99))
        self.num_classes = num_classes
        self.in_chans = in_chans = check_integer("in_chans", in_chans, 1, 256)
        self.stem_stride = stem_stride = check_integer("stem_stride", stem_stride, 1, 64)
        self._timesteps, self.encoding = timesteps, resolve_encoding(encoding)
        self._scaling = resolve_scaling(scaling)
        self.model_args = {
            "timesteps": timesteps,
            "neuron": _as_json(neuron),
            "surrogate": _as_json(surrogate),
            "scaling": _as_json(scaling or NONE),
            "norm": _as_json(norm),
            "encoding": encoding,
            "dropout": dropout,
            "in_chans": in_chans,
            "stem_stride": stem_stride,
        } | dict(own_args or {})

    def make_stem(self, channels: int, *, neurons: bool = True) -> None:
        """Adds the first layers: conv1 over the image, bn1 and, if `neurons`, lif1."""
        self.conv1 = stem_conv(self.in_chans, channels, self.stem_stride)
        self.bn1 = self.make.norm(channels)
        if neurons:
            self.lif1 = self.make.neuron()

    def add_stage(self, stage: nn.Module, channels: int, reduction: int) -> None:
        """Appends a stage, whose output has so many channels, at 1 / `reduction` of the resolution behind conv1."""
        if not hasattr(self, "stages"):
            self.stages, self.feature_info = nn.ModuleList(), []
        module = f"stages.{len(self.stages)}"
        self.feature_info.append({"num_chs": channels, "reduction": self.stem_stride * reduction, "module": module})
        self.stages.append(stage)
        self.num_features = channels

    def finish(self, features: int | None = None) -> None:
        """Adds the classifier, over `features` or by default the channels of the last stage; then does what needs all
        layers: initial weights, parameters of neurons for each channel, gradient scaling.

        Raises:
            ZooError: a layer has a name that records and terminals could not show, or gradient scaling reaches none.
        """
        self.fc = self.make_classifier(features or self.num_features)
        if hidden := [name for name, _ in self.named_modules() if not name.isprintable()]:
            raise ZooError(f"a layer is called {hidden[0]!r}: names are printable text")
        self.init_weights()
        self.build_neurons()
        self.assign_scaling()

    def build_neurons(self) -> None:
        """Calls `SpikingNeuron.build` of each neuron layer with its channels, which a forward pass without memory tells
        where a class needs them."""
        neurons = {name: module for name, module in self.named_modules() if isinstance(module, SpikingNeuron)}
        if all(type(neuron).build is SpikingNeuron.build for neuron in neurons.values()):
            return

        def silent(neuron: SpikingNeuron, x: Tensor, *, repeat: bool = False, **_: Any) -> Tensor:
            neuron.build((x.shape[1], *[1] * (x.dim() - 2)))
            return x.new_zeros(len(x) * (self.timesteps if repeat else 1), *x.shape[1:])

        dry = copy.deepcopy(self).to("meta").eval()
        for name, module in dry.named_modules():
            if name in neurons:
                cast(Any, module).forward = functools.partial(silent, neurons[name])
        side = self.img_size or 32 * self.stem_stride
        frames = [self.timesteps] if self.encoding == "frames" else []
        dry(torch.zeros(1, *frames, self.in_chans, side, side, device="meta"))

    def init_weights(self) -> None:
        """Initialises every convolution as He et al. 2015 (arXiv 1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def assign_scaling(self) -> None:
        """Gives the rule of gradient scaling to the layers that it reaches; raises ZooError if it reaches none."""
        layers = {n: m for n, m in self.named_modules() if isinstance(m, ScaledLayer)}
        rule = self._scaling
        reached = [n for n, m in layers.items() if rule and rule.reaches(n, m.by_default, m.one_shape)]
        for name, layer in layers.items():
            layer.scale_by(rule if name in reached else None)
        for module in self.modules():
            if isinstance(module, SpikingNeuron):
                module.shows_potential = rule is not None and rule.preset.potential
        if rule and not reached:
            if rule.layers in layers:
                layers[rule.layers].scale_by(rule)  # which says why it takes no such layer
            if rule.layers in ("default", "all"):
                which = ", by_default=True" if rule.layers == "default" else ""
                takes = " of one shape before and behind" if rule.preset.one_shape else ""
                raise ZooError(
                    f"scaling {rule.name} reaches no layer of {type(self).__name__}: it needs a convolution of "
                    f"self.make.conv(...{which}){takes}"
                )
            near = one_of("layers of scaling", rule.layers, list(layers))
            raise ZooError(f"{near}; or 'default', 'all', or a wildcard, 'stages.2.*'")

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Takes images [B, C, H, W] to logits [B, classes], or [T, B, classes], those of each step, if `per_step`."""
        if getattr(self, "_is_replica", False) and (per_step or (self.training and self._scaling)):
            raise ZooError("DataParallel would join time steps for images, and scale each part by itself: use torchrun")
        return self.forward_head(self.forward_features(x), per_step=per_step)

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to [T*B, C, H, W]; with `repeat`, it is [B, C, H, W], the same at every time step."""
        return self.lif1(self.conv1(x), norm=self.bn1, repeat=repeat)

    def forward_features(self, x: Tensor) -> Tensor:
        """Takes images [B, C, H, W] to what the head sees, [T*B, C', H', W']."""
        x = self.forward_stem(*encode(x, self.encoding, self.timesteps, self.in_chans))
        for stage in self.stages:
            x = self.run_stage(stage, x)
        return x

    def forward_pre_logits(self, x: Tensor) -> Tensor:
        """Takes features [T*B, C, H, W] to what the classifier sees, [T*B, C']."""
        return self.dropout(self.pool(x).flatten(1))

    def forward_classifier(self, x: Tensor) -> Tensor:
        """Takes the classifier's inputs [T*B, C'] to logits [T*B, classes]."""
        return self.fc(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False, per_step: bool = False) -> Tensor:
        """Takes features [T*B, C, H, W] to logits [B, classes], or to the classifier's inputs [B, C'] if `pre_logits`.

        They are means over time; with `per_step`, those of every time step, [T, B, ...].
        """
        x = self.forward_pre_logits(x)
        steps = unfold_steps(x if pre_logits else self.forward_classifier(x), self.timesteps)
        return steps if per_step else steps.mean(0)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Returns features [T*B, ...] and the outputs of stages, as timm's networks give them.

        Args:
            x: images [B, C, H, W].
            indices: which stages, negative from the end; an integer n for the last n, None for all.
            norm: as timm's networks take it; nothing follows the last stage here.
            stop_early: leave out the stages behind the last index.
            output_fmt: "NCHW", mean over time [B, C, H, W]: firing rates, where a stage ends in spikes; or "TNCHW".
            intermediates_only: return the list alone.

        Raises:
            ZooError: an index or a format that there is not.
        """
        if output_fmt not in ("NCHW", "TNCHW"):
            raise one_of("output_fmt", output_fmt, ["NCHW", "TNCHW"])
        take = self.stage_indices(indices)
        x = self.forward_stem(*encode(x, self.encoding, self.timesteps, self.in_chans))
        outputs = {}
        for i, stage in enumerate(self.stages):
            if stop_early and i > max(take):
                break
            x = self.run_stage(stage, x)
            if i in take:
                outputs[i] = unfold_steps(x, self.timesteps)
        intermediates = [outputs[i] if output_fmt == "TNCHW" else outputs[i].mean(0) for i in take]
        return intermediates if intermediates_only else (x, intermediates)

    def stage_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Returns the stages meant, from 0: an integer n is for the last n, None for all; ZooError for others."""
        count = len(self.stages)
        wanted: Any = range(-count if indices is None else -indices, 0) if isinstance(indices, int | None) else indices
        given = list(wanted) if isinstance(wanted, Sequence) else []
        if not given or not all(type(index) is int and -count <= index < count for index in given):
            known = f"give indices from {-count} to {count - 1}, or the number of last stages"
            raise ZooError(f"a network of {count} stages has no {indices!r}: {known}")
        return [index % count for index in given]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what `forward_intermediates` does not need for these stages, in timm's words, and returns them."""
        take = self.stage_indices(indices)
        del self.stages[max(take) + 1 :]
        for name, _ in list(self.named_children()):
            if prune_head and re.match(_HEAD, name):
                setattr(self, name, nn.Identity())
        return take

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last linear layer by a new one for `num_classes` classes (0: none), which has no labels yet.

        Raises:
            ZooError: `num_classes` is no such number, or `global_pool` another pooling than the network's own.
        """
        check_global_pool(global_pool)
        self.num_classes = num_classes = check_integer("num_classes", num_classes, 0, MOST_CLASSES)
        weight = next(self.parameters())
        self.fc = self.make_classifier(self.head_hidden_size).to(weight.device, weight.dtype)
        self.weights_sha256 = self.training_args = None
        if cfg := getattr(self, "pretrained_cfg", None):
            kept = {key: value for key, value in cfg.items() if key not in ("label_names", "tag")}
            self.pretrained_cfg = kept | {"num_classes": num_classes}

    def make_classifier(self, features: int) -> nn.Module:
        """Makes a linear layer from features to classes, or nothing where there are none."""
        self.head_hidden_size = features
        return nn.Linear(features, self.num_classes) if self.num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns timm's patterns for layer-wise learning rates: the stem, then stages or, unless `coarse`, blocks; the
        head, what is called fc*, final* or lif_hidden*, comes last. A subclass with other names overrides this."""
        stage = (r"^stages\.(\d+)", None)  # of one that is no row of blocks, too
        blocks = [stage] if coarse else [(r"^stages\.(\d+)\.(\d+)", None), stage]
        return {"stem": rf"^(?!stages|{_HEAD})", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Returns the biases, also those learned for each time step, and the parameters of neurons that their class
        names; what has one dimension needs no mention."""
        neurons = {name: module for name, module in self.named_modules() if isinstance(module, SpikingNeuron)}
        own = {f"{name}.{key}" for name, neuron in neurons.items() for key in neuron.no_weight_decay()}
        return own | {name for name, _ in self.named_parameters() if name.endswith(".bias")}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what it takes, without the batch: an image, or event frames, one for each time step."""
        frames = [self.timesteps] if self.encoding == "frames" else []
        return (*frames, *self.pretrained_cfg["input_size"])

    @property
    def timesteps(self) -> int:
        """T; see `set_timesteps`."""
        return self._timesteps

    def set_timesteps(self, timesteps: int) -> None:
        """Runs with another number of time steps from now on, with the same parameters.

        Factors of gradient scaling that are kept between training steps start anew.

        Raises:
            ZooError: the network learns something for each time step (tebn, glif, psn).
        """
        if (timesteps := check_timesteps(timesteps)) == self.timesteps:
            return
        fixed = [name for name, module in self.named_modules() if getattr(module, "learns_per_step", False)]
        if fixed:
            found = f"{fixed[0]} has parameters for each of {self.timesteps} time steps"
            raise ZooError(f"{found}: cannot run {timesteps}; create another network")
        for module in self.modules():
            if "timesteps" in vars(module):
                vars(module)["timesteps"] = timesteps
            if isinstance(module, ScaledLayer):
                module.scale_by(module.scaling)
        self._timesteps = self.make.timesteps = timesteps
        self.model_args = self.model_args | {"timesteps": timesteps}

    def set_alpha(self, alpha: float | None = None) -> None:
        """Scales gradients with another strength from now on: 0 for plain STBP, None for the rule's own.

        Factors that are kept between training steps start anew.

        Raises:
            ZooError: the network has no gradient scaling, or alpha is not from 0 to 1.
        """
        if self._scaling is None:
            if alpha is None:
                return
            raise ZooError(f"alpha {alpha} needs a network with gradient scaling, and this one has none")
        rule = self._scaling if alpha is None else self._scaling._replace(alpha=check_number("alpha", alpha, 0, 1))
        for module in self.modules():
            if isinstance(module, ScaledLayer) and module.scaling not in (None, rule):
                module.scale_by(rule)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: keeps the spikes between stages alone, runs each again in backward.

        Gradients and running statistics are those of a network without it.
        """
        self.grad_checkpointing = enable

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """Returns stage(x), checkpointed if that is on."""
        checkpointed = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        return self._checkpointed(stage, x) if checkpointed else stage(x)

    @torch.compiler.disable  # its tracing knows no contexts
    def _checkpointed(self, stage: nn.Module, x: Tensor) -> Tensor:
        contexts = lambda: (contextlib.nullcontext(), _Repeating(stage))  # noqa: E731
        return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)

    def scaling_state(self) -> dict[str, Tensor]:
        """Returns what scaled layers keep between steps, to go on from later; no part of state_dict."""
        kept = {name: module for name, module in self.named_modules() if isinstance(module, KeptFactor)}
        return {f"{name}.{key}": getattr(kept[name], key) for name in kept for key in ("factor", "calls")}

    def load_scaling_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `scaling_state` gave; raises ZooError if it is of other layers."""
        kept = self.scaling_state()
        if other := sorted(kept.keys() ^ state.keys()):
            raise ZooError(f"the factors of gradient scaling are of other layers: {other[0]}")
        for name, value in kept.items():
            value.copy_(state[name])

    @property
    def _model_args(self) -> dict[str, Any]:
        """The keywords that timm's `save_for_hf` writes."""
        return dict(self.model_args)

    @_model_args.setter
    def _model_args(self, value: Mapping[str, Any]) -> None:
        """timm notes the keywords of `create_model` here; `model_args` has those of the checkpoint, too."""

    def kernel_for(self, device: str, dtype: torch.dtype) -> str:
        """Names the code that runs the neurons for currents of that type on that device; see `zoo.kernels`."""
        names = dict.fromkeys(m.kernel_for(device, dtype) for m in self.modules() if isinstance(m, SpikingNeuron))
        return ", ".join(names)


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the network inside what PyTorch and timm put one into: torch.compile's module, DataParallel's,
    DistributedDataParallel's, that of an average of weights. Other modules compute something of their own."""
    while isinstance(model, _WRAPPERS) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, _WRAPPERS) else model._orig_mod  # type: ignore[assignment]
    return model


def check_registered(model: nn.Module) -> None:
    """Raises ZooError for a network that was built from its class alone, which no name stands for."""
    if isinstance(model, SpikingNetwork) and not hasattr(model, "pretrained_cfg"):
        kind = type(model).__name__
        raise ZooError(
            f"this {kind} has no name: register the class (zoo.register_family, zoo.register_model), and build it with "
            "zoo.create_model"
        )


def check_global_pool(pool: str | None) -> None:
    """Raises ZooError unless timm's keyword `global_pool` asks for nothing, or for what the networks have: "avg"."""
    if pool not in (None, "avg"):
        raise ZooError(f"global_pool must be 'avg', not {pool!r}: how a network of the zoo pools is a part of it")


class _Repeating:
    """A forward pass that only repeats one, in every backward pass through it: it starts from the statistics and kept
    factors that the first one started from, and leaves those of now as they are."""

    def __init__(self, stage: nn.Module) -> None:
        self.kept = [*stage.buffers(), *(m.calls for m in stage.modules() if isinstance(m, KeptFactor))]
        self.before = [value.clone() for value in self.kept]

    def __enter__(self) -> None:
        self.now = [value.clone() for value in self.kept]
        self._set(self.before)

    def __exit__(self, *error: object) -> None:
        self._set(self.now)

    def _set(self, values: list[Tensor]) -> None:
        for kept, value in zip(self.kept, values, strict=True):
            kept.copy_(value)


def _as_json(spec: Any) -> Any:
    """Returns a name, or an object of its own with the numbers of a neuron, surrogate, norm or scaling."""
    return copy.deepcopy(spec._asdict() if hasattr(spec, "_asdict") else spec)
