"""Rules of gradient scaling of somebody's own: registered under a name, once they were tried."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ZooError, one_line, one_of
from ..plugins import check_new
from .operators import Geometry, weight_gradient
from .rules import CONTROLS, LOCALITIES, PRESETS, Rule
from .spec import Scaling

_STEPS, _MAPS = 2, (2, 3, 4, 4)


def register_scaling(
    name: str, locality: str = "weight", window: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator: make `factor(spikes, alpha)` a preset under a name, to be used like ours; see `zoo.scaling.Rule`.

    Raises:
        ZooError: no name, one that is taken, an unknown locality, or a function that fails on a few spikes, or gives
            none but finite numbers there in the shape of a factor.
    """
    if not isinstance(name, str):
        raise ZooError(f'register_scaling takes a name first, @zoo.register_scaling("my_rule"), not {name!r}')
    before = PRESETS[name].factor if name in list(PRESETS) else CONTROLS.get(name)
    check_new("scaling", name, before)
    if locality not in LOCALITIES:
        raise one_of("locality", locality, LOCALITIES)

    def register(factor: Callable[..., Tensor]) -> Callable[..., Tensor]:
        check_new("scaling", name, before, factor)
        if not callable(factor):
            raise ZooError(f"scaling {name!r} is a function of (spikes, alpha), not {factor!r:.200}")
        known = dict(PRESETS)
        PRESETS[name] = Rule(factor, locality, window, rank=window)
        try:
            _try(Scaling(name, 0.5))
        except BaseException:
            PRESETS.clear()
            PRESETS.update(known)
            raise
        return factor

    return register


@torch.no_grad()
def _try(scaling: Scaling) -> None:
    """Raise ZooError unless a rule gives what it says, of a layer that spikes and of a silent one."""
    maps = (_STEPS, *_MAPS)
    weight = torch.ones(_MAPS[1], _MAPS[1], 3, 3)
    operator = weight_gradient(weight, Geometry([1, 1], [1, 1], [1, 1], 1))
    shape = (scaling.steps(_STEPS), *weight.shape) if scaling.preset.locality == "weight" else maps
    every_third = torch.arange(torch.Size(maps).numel()).view(maps) % 3 == 0
    for what, spikes in (("spikes", every_third.float()), ("a layer without spikes", torch.zeros(maps))):
        where = f"scaling {scaling.name!r} fails on {what} of shape {list(maps)}"
        with torch.random.fork_rng(devices=[]):
            try:
                found = scaling.factor(spikes, spikes.flip(0), operator, weight.dtype)
            except Exception as error:  # whatever a rule does that nobody has seen before
                raise ZooError(f"{where}: {type(error).__name__}: {one_line(error)}") from error
        if not torch.isfinite(scaling.shaped(found, shape)).all():
            raise ZooError(f"{where}: its factor is not finite")
