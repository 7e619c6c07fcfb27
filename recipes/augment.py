"""Augmentation of whole batches on the device: each image draws its own parameters.

Copies to a GPU do not wait for it (`non_blocking`): what is copied is a few numbers an image. Torchvision's do, of
what it rotates and shears by, so what images are warped by is kept (`_warped`).

Randomness comes from torch's (and, for timm's erasing, Python's) global generators, which the trainer seeds at every
step: a resumed run sees the same images.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as tv

from zoo.data import DataSet, normalise

from .recipe import Recipe


def augmented(images: Tensor, recipe: Recipe, data: DataSet) -> Tensor:
    """Returns images uint8 [B, C, H, W] as the recipe augments them, normalised, float32.

    Event frames [B, T, C, H, W] are augmented alike at each time step; of them come back counts [B, T*C, H, W].
    """
    if images.dim() == 5:
        images = images.flatten(1, 2)
    if recipe.crop:
        images = random_crop(images, recipe.crop)
    if recipe.hflip:
        images = random_flip(images, data.mirrored)
    if recipe.auto_augment == "nda":
        images = nda(images)
    else:
        images = auto_augment(images, recipe.auto_augment, recipe.randaugment_ops, recipe.randaugment_magnitude)
    x = normalise(images, data.mean, data.std) if data.timesteps is None else images.float()
    if recipe.cutout:
        x = cutout(x, recipe.cutout)
    return RandomErasing(recipe.erasing, mode="const", device=x.device)(x) if recipe.erasing else x


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Pads by `padding` pixels of zero on each side, then cuts out the original size at a random place per image."""
    batch, _, height, width = images.shape
    windows = pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    y, x = torch.randint(2 * padding + 1, (2, batch)).to(images.device, non_blocking=True)
    return windows[torch.arange(batch, device=images.device), :, y, x]


def random_flip(images: Tensor, steps: Sequence[int] | None = None) -> Tensor:
    """Mirrors each image left to right with probability one half; of counts [B, T*C, H, W], `steps` are the time steps
    in the order of a mirrored sample (see `zoo.DataSet`), by default as they are."""
    chosen = torch.rand(len(images)).to(images.device, non_blocking=True) < 0.5
    mirrored = images.flip(3)
    if steps:
        mirrored = mirrored.unflatten(1, (len(steps), -1))[:, steps].flatten(1, 2)
    return torch.where(chosen[:, None, None, None], mirrored, images)


def resize(images: Tensor, size: int) -> Tensor:
    """Returns float images [B, C, H, W] at `size` x `size` pixels, bilinear and without aliasing."""
    if images.shape[2:] == (size, size):
        return images
    return interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def cutout(images: Tensor, size: int) -> Tensor:
    """Zeroes a square of `size` pixels at a random centre, clipped at the border (DeVries 2017, arXiv 1708.04552)."""
    batch, _, height, width = images.shape

    def inside(length: int) -> Tensor:
        start = torch.randint(length, (batch, 1)).to(images.device, non_blocking=True) - size // 2
        place = torch.arange(length, device=images.device)
        return (place >= start) & (place < start + size)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return images.masked_fill(hole, 0)


def auto_augment(images: Tensor, kind: str, ops: int, magnitude: int) -> Tensor:
    """Applies AutoAugment's CIFAR-10 policy (arXiv 1805.09501) or RandAugment (1909.13719) to uint8 [B, C, H, W].

    Args:
        kind: "none", "autoaugment" or "randaugment".
        ops, magnitude: RandAugment's number of operations per image and their strength, 0 to 30.
    """
    if kind == "none":
        return images
    if kind == "randaugment":
        for _ in range(ops):
            choice = torch.randint(len(_RAND_OPS), (len(images),))
            images = _apply(images, choice, [(name, magnitude / 30) for name in _RAND_OPS])
        return images
    policy = torch.randint(len(_POLICIES), (len(images),))
    for position in (0, 1):
        sub = [p[position] for p in _POLICIES]
        used = torch.rand(len(images)) <= torch.tensor([probability for _, probability, _ in sub])[policy]
        choice = torch.where(used, policy, len(sub))
        images = _apply(images, choice, [(name, (level or 0) / 9) for name, _, level in sub] + [("Identity", 0.0)])
    return images


def nda(frames: Tensor) -> Tensor:
    """Rolls, rotates, shears or cuts out of each recording, one of them or none with equal probability, as neuromorphic
    data augmentation does (Li et al. 2022, arXiv 2203.06145): by at most 5 pixels, 15 degrees, 0.15 and 8 pixels.

    Args:
        frames: [B, T*C, H, W].
    """
    out = frames.clone()
    choice = torch.randint(5, (len(frames),))
    for i in range(len(frames)):
        shift, tilt = torch.randint(-5, 6, (2,)).tolist(), float(torch.empty(()).uniform_(-1, 1))
        if choice[i] == 0:
            out[i] = frames[i].roll(shift, (1, 2))
        elif choice[i] == 1:
            out[i] = tv.rotate(frames[i], angle=15 * tilt)
        elif choice[i] == 2:
            out[i] = _shear(frames[i], 0.15 * tilt, 0.0)
        elif choice[i] == 3:
            out[i : i + 1] = cutout(frames[i : i + 1], int(torch.randint(1, 9, ())))
    return out


def _warped(images: Tensor, level: float, name: str) -> Tensor:
    """Returns images [B, C, H, W] under the operation of `_WARPS`: each pixel is one of before, or zero."""
    sources = _sources(name, level, *images.shape[2:], images.device)
    return pad(images.flatten(2), (1, 0))[..., sources].view_as(images)


@functools.lru_cache(maxsize=256)
def _sources(name: str, level: float, height: int, width: int, device: torch.device) -> Tensor:
    places = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    return _WARPS[name](places, level).flatten().long().to(device)


def _shear(images: Tensor, x: float, y: float) -> Tensor:
    degrees = [float(torch.rad2deg(torch.atan(torch.tensor(v)))) for v in (x, y)]
    return tv.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])


def _shift(images: Tensor, x: float, y: float) -> Tensor:
    return tv.affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])


_WARPS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "ShearX": lambda x, m: _shear(x, 0.3 * m, 0.0),
    "ShearY": lambda x, m: _shear(x, 0.0, 0.3 * m),
    "TranslateX": lambda x, m: _shift(x, 150 / 331 * x.shape[3] * m, 0),
    "TranslateY": lambda x, m: _shift(x, 0, 150 / 331 * x.shape[2] * m),
    "Rotate": lambda x, m: tv.rotate(x, angle=30 * m),
}
# name -> (operation at level 0 to 1, whether its sign is drawn). Ranges as in torchvision's AutoAugment.
_OPS: dict[str, tuple[Callable[[Tensor, float], Tensor], bool]] = {
    "Identity": (lambda x, m: x, False),
    **{name: (functools.partial(_warped, name=name), True) for name in _WARPS},
    "Brightness": (lambda x, m: tv.adjust_brightness(x, 1 + 0.9 * m), True),
    "Color": (lambda x, m: tv.adjust_saturation(x, 1 + 0.9 * m), True),
    "Contrast": (lambda x, m: tv.adjust_contrast(x, 1 + 0.9 * m), True),
    "Sharpness": (lambda x, m: tv.adjust_sharpness(x, 1 + 0.9 * m), True),
    "Posterize": (lambda x, m: tv.posterize(x, bits=round(8 - 4 * m)), False),
    "Solarize": (lambda x, m: tv.solarize(x, threshold=255 * (1 - m)), False),
    "AutoContrast": (lambda x, m: tv.autocontrast(x), False),
    "Equalize": (lambda x, m: tv.equalize(x), False),
    "Invert": (lambda x, m: tv.invert(x), False),
}
_RAND_OPS = [name for name in _OPS if name != "Invert"]
_POLICIES = AutoAugment(AutoAugmentPolicy.CIFAR10).policies


def _apply(images: Tensor, choice: Tensor, operations: list[tuple[str, float]]) -> Tensor:
    # The images that drew the same operation and sign go through it together: a few calls per batch, not one per image.
    out = images.clone()
    negative = torch.rand(len(images)) < 0.5
    for index, (name, level) in enumerate(operations):
        operation, signed = _OPS[name]
        for sign in (1, -1) if signed else (1,):
            chosen = choice == index
            if signed:
                chosen = chosen & (negative if sign < 0 else ~negative)
            where = chosen.nonzero().flatten().to(images.device, non_blocking=True)
            if len(where) and name != "Identity":
                out[where] = operation(images[where], sign * level)
    return out
