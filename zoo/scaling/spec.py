"""The keyword `scaling`: a rule of the family with its numbers, and how it is made cheaper than exact."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from ..errors import ZooError, one_of
from ..schema import Model, Share, adapter, sentence
from ..specs import MOST, Spec, split_spec
from . import rules
from .rules import CONTROLS, NORM_SCALE, PRESETS, TRACE_DECAY, Rule, Spikes, WeightGradient, widened

NONE = "none"
"""How model arguments spell None: timm drops keywords that are None, and a `_gs` model would fall back to its rule."""
DEFAULT_LAYERS = "default"
ALL_LAYERS = "all"

_Count = Annotated[int, Field(ge=1, le=MOST)]


class Scaling(NamedTuple):
    """One rule with its numbers, and how it is made cheaper than exact."""

    name: str
    alpha: Share = 0.5
    """Strength, 0 to 1."""
    k: Share = TRACE_DECAY
    """Decay of a trace from one step to the next."""
    of: str | None = None
    """For a control: the preset that it is the control of."""
    layers: str = DEFAULT_LAYERS
    """Which layers are scaled: "default", "all" or a wildcard over their names, "stages.2.*"."""
    every: _Count = 1
    """The factor is computed in every n-th forward pass, and kept between."""
    rank: _Count | None = None
    """Terms of the evidence of a whole window, 1 to T; None for all (see `zoo.scaling.rules.window_terms`)."""

    @property
    def preset(self) -> Rule:
        """The rule itself, or the one that it is the control of."""
        return PRESETS[self.of or self.name]

    @property
    def stateful(self) -> bool:
        """Whether a layer keeps its factor from one forward pass to the next."""
        return self.every > 1

    def steps(self, timesteps: int) -> int:
        """Length of the first axis of a factor of weight gradients."""
        return 1 if self.preset.window else timesteps

    def reaches(self, name: str, by_default: bool, one_shape: bool) -> bool:
        """Returns whether a layer of that name is scaled; `one_shape` if its input and output have one."""
        if self.preset.one_shape and not one_shape:
            return False
        if self.layers in (DEFAULT_LAYERS, ALL_LAYERS):
            return by_default or self.layers == ALL_LAYERS
        return fnmatchcase(name, self.layers)

    def factor(
        self, pre: Tensor, post: Tensor, operator: WeightGradient, dtype: torch.dtype, potential: Tensor | None = None
    ) -> Tensor:
        """Returns the factor, of this forward pass alone.

        Args:
            pre: the layer's input spikes [T, B, ...].
            post: the spikes [T, B, ...] of the neurons that it drives, in the shape of the layer's output.
            operator: the layer's weight-gradient operator K.
            dtype: what it computes in.
            potential: membrane potential minus threshold of these neurons [T, B, ...], for a rule that reads it.
        """
        if not self.preset.counts:
            pre, post = pre.to(dtype), post.to(dtype)
        spikes = Spikes(pre, post, self.k, operator, dtype, potential, self.rank)
        if self.of is None:
            return self.preset.factor(spikes, self.alpha)
        return CONTROLS[self.name](self.preset, spikes, self.alpha)

    def shaped(self, factor: Tensor, shape: Sequence[int]) -> Tensor:
        """A factor, as `factor` gives it, in the whole shape of what it multiplies; ZooError for something else, as a
        rule of somebody's own may give."""
        found = list(factor.shape) if isinstance(factor, Tensor) else []
        if len(found) != len(shape) or not all(size in (1, whole) for size, whole in zip(found, shape, strict=True)):
            wrong = f"scaling {self.of or self.name} gives {found or repr(factor)}, not a factor of shape {list(shape)}"
            known = f"registered with locality {self.preset.locality!r} and window={self.preset.window}"
            raise ZooError(f"{wrong} (it is {known}; see `zoo.scaling`)")
        return factor.expand(shape)

    def gradients(
        self, pre: Tensor, message: Tensor, error: Tensor, operator: WeightGradient
    ) -> tuple[Tensor, Tensor | None]:
        """The scaled weight gradient of one layer, and the error to pass down where the rule changes it, else None.

        Args:
            pre, operator: as for `factor`.
            message: the factor of the weight gradient; or, for a rule of another locality, the post spikes [T, B, ...].
            error: gradient at the layer's output [T, B, ...].
        """
        if self.preset.locality == "weight":
            one = len(message) == 1
            plain = rules.folded(operator, pre, error)[None] if one else rules.each_step(operator, pre, error)
            scaled = (message * widened(plain)).sum(0)
            return rules.same_norm(widened(plain).sum(0), scaled) if self.name == NORM_SCALE else scaled, None
        factor = self.shaped(self.factor(pre, message, operator, error.dtype), error.shape)
        scaled = (error * factor).to(error.dtype)
        return widened(rules.folded(operator, pre, scaled)), scaled if self.preset.locality == "error_down" else None


def list_scalings() -> list[str]:
    """Returns the names that the `scaling` keyword takes: presets, then controls, which also need `of`."""
    return [*PRESETS, *CONTROLS]


def unregistered_rule(spec: Any) -> str | None:
    """The name in a spec that no rule is registered under, as that of a plugin that was not loaded; else None."""
    names = [spec.get("name"), spec.get("of")] if isinstance(spec, Mapping) else [spec]
    return next((name for name in names if isinstance(name, str) and name not in [*list_scalings(), NONE]), None)


def resolve_scaling(spec: Spec | Scaling | None) -> Scaling | None:
    """Turns None or "none", a preset's name or an object `{"name": ..., "alpha": ..., ...}` into a `Scaling`.

    alpha is 0.5 and k is exp(-1) by default; a control (mean_scale, norm_scale, permuted, shuffled) says with `of`
    which preset it is the control of, "causal_trace" by default.

    Raises:
        ZooError: unknown preset or key, or a number out of range.
    """
    if spec is None or spec == NONE or isinstance(spec, Scaling):
        return spec if isinstance(spec, Scaling) else None
    keys = [field for field in Scaling._fields if field != "name"]
    name, given = split_spec("scaling", spec, dict.fromkeys([*list_scalings(), NONE], keys))
    if name == NONE:
        if given:
            raise ZooError(f"scaling {NONE} takes no {', '.join(given)}: name a rule")
        return None
    of = given.get("of") or ("causal_trace" if name in CONTROLS else None)
    if name in PRESETS and of is not None:
        raise ZooError(f"scaling {name} takes no 'of': only the controls {', '.join(CONTROLS)} do")
    if of is not None and of not in list(PRESETS):
        raise one_of(f"'of' of scaling {name}", of, list(PRESETS))
    try:
        scaling = adapter(Scaling).validate_python({"name": name} | given | {"of": of})
    except ValidationError as error:
        raise sentence(error, Model, "scaling") from None
    by_error = scaling.preset.locality != "weight"
    for wrong, why in (
        (scaling.rank and not scaling.preset.rank, f"{of or name} takes no rank: only evidence of a window has terms"),
        (by_error and name == NORM_SCALE, f"{name} is a control of rules that scale weight gradients, {of} is none"),
        (by_error and scaling.stateful, f"{of or name} scales each error by itself: it takes no every"),
        (scaling.preset.potential and scaling.stateful, f"{of or name} reads membrane potentials: it takes no every"),
    ):
        if wrong:
            raise ZooError(f"scaling {why}")
    return scaling
