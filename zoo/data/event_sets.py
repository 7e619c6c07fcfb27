"""From folders of recordings to frames: event-camera data sets as published, your own, and images turned to events.

    cifar10dvs:DIR   DIR/CLASS/*.aedat; it has no official split, see `_cifar10dvs`
    dvsgesture:DIR   DIR/*.aedat, *_labels.csv, trials_to_train.txt and trials_to_test.txt
    nmnist:DIR       DIR/Train/DIGIT/*.bin, DIR/Test/DIGIT/*.bin
    events:DIR       DIR/train/CLASS/*, DIR/test/CLASS/* of any format; DIR/sensor.json, {"height": 128, "width": 128}
    i2e:DATASET      a data set of images, turned to events offline

Frames are made once, with progress, and kept in one file, which is mapped into memory.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from ..errors import ZooError
from ..files import read_json, read_text, sha256_of, stamp, user_path
from ..names import I2E, Slices, check_size
from ..schema import Model, parse
from ..specs import check_timesteps
from .dataset import DataSet, cached, fixed_order, make_dataset
from .events import SUFFIXES, Events, read_events, to_frames

_GESTURES = [
    *("hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise"),
    *("left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures"),
]
_DIRECTIONS = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
"""Of the eight steps of I2E: rows and columns from a pixel to the neighbour that it is compared with."""
_MIRRORED = tuple(_DIRECTIONS.index((y, -x)) for y, x in _DIRECTIONS)
I2E_STEPS = len(_DIRECTIONS)
_THRESHOLD = 0.12
"""Share of the range of an image's brightness."""
_CHUNK, _PIXELS = 1000, 2**20
"""Images, and pixels of these, that are turned to events at once, which takes 200 bytes a pixel."""


class _Sample(NamedTuple):
    """A recording of one class, or the part of one between two times."""

    file: Path
    label: int
    begin: int = 0
    end: int = 2**62


class _Folder(NamedTuple):
    sensor: tuple[int, int]
    classes: list[str]
    train: list[_Sample]
    test: list[_Sample]


class _Sensor(Model):
    """The content of sensor.json."""

    height: int
    width: int


def load_events(kind: str, path: str, name: str, steps: int, by: Slices, size: int | None) -> DataSet:
    """Loads a folder of recordings as frames [N, T, 2, H, W].

    Args:
        kind: one of `KINDS`.
        name: what the data set is called.
        steps: T; see `zoo.data.events.edges`.
        size: rows and columns of the frames; those of the sensor by default.

    Raises:
        ZooError: a folder that is not laid out as `kind` is, or a recording that cannot be read.
    """
    root = user_path(path)
    folder = KINDS[kind](root)
    form = (size, size) if size else folder.sensor
    for side in form:
        check_size(side)
    samples = folder.train + folder.test

    def frames() -> Iterator[NDArray[np.uint8]]:
        last: tuple[Path, Events] | None = None  # one recording may hold many samples
        for sample in tqdm(samples, desc=f"frames of {name}", unit="recording", disable=None, leave=False):
            if last is None or last[0] != sample.file:
                last = sample.file, read_events(sample.file, folder.sensor)
            events = last[1]
            part = slice(*np.searchsorted(events.t, (sample.begin, sample.end)))
            yield to_frames(events.taken(part), folder.sensor, steps, by, form)

    def note() -> dict[str, Any]:
        hashes = {file: sha256_of(file) for file in {sample.file for sample in samples}}
        lines = [folder.sensor, count, *((hashes[sample.file], *sample[1:]) for sample in samples)]
        return {"sha256": sha256_of("\n".join(map(str, lines)).encode())}

    labels, count = torch.tensor([sample.label for sample in samples]), len(folder.train)
    stamps = [(str(s.file.relative_to(root)), *stamp(s.file), *s[1:]) for s in samples]
    key = [kind, str(root.resolve()), check_timesteps(steps), by, form, folder.sensor, stamps]
    images, told = _kept(key, (len(samples), steps, 2, *form), frames(), note)
    train, test = (images[:count], labels[:count]), (images[count:], labels[count:])
    return make_dataset(name, folder.classes, train, test, told=told)


def load_i2e(data: DataSet, *, noise: float = 0.0, jitter: int = 0) -> DataSet:
    """Turns images to event frames, as I2E does (Ruan et al., AAAI 2026): in each of eight steps a pixel is compared
    with one of its neighbours, and has a brighter or a darker event where the difference is at least a share of the
    range of the image's brightness.

    As a real camera is not as exact, `zoo.register_dataset("noisy", lambda root: load_i2e(zoo.load_dataset("cifar10",
    root), noise=0.1, jitter=1))` makes a data set of one that errs, with the same errors each time.

    Args:
        noise, jitter: see `image_events`.

    Returns:
        Frames [N, 8, 2, S, S], darker first: of 0 and 1, or with jitter up to 8.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [(data.train_images, data.train_labels), (data.test_images, data.test_labels)]
    if data.val_images is not None and data.val_labels is not None:
        parts.append((data.val_images, data.val_labels))

    def frames() -> Iterator[NDArray[np.uint8]]:
        chunk_size = max(1, min(_CHUNK, _PIXELS // data.size**2))
        chunks = [chunk for part, _ in parts for chunk in part.split(chunk_size)]
        for chunk in tqdm(chunks, desc=f"events of {data.name}", disable=None, leave=False):
            yield from image_events(chunk, noise=noise, jitter=jitter, generator=generator).numpy()

    counts, size = [len(labels) for _, labels in parts], data.size
    digest = hashlib.sha256()
    for part, _ in parts:  # not data.sha256, which whoever blurs its images leaves as it is
        digest.update(part.contiguous().numpy().data)
    key = [I2E, _THRESHOLD, digest.hexdigest(), *([noise, jitter] if noise or jitter else [])]
    images, _ = _kept(key, (sum(counts), I2E_STEPS, 2, size, size), frames(), dict)
    turned = zip(images.split(counts), (labels for _, labels in parts), strict=True)
    own = [I2E, _THRESHOLD, float(noise), jitter, data.sha256]  # the same images, whatever size they are brought to
    told = {"sha256": sha256_of(json.dumps(own).encode())}
    return make_dataset(f"{I2E}_{data.name}", data.classes, *turned, told=told)._replace(mirrored=_MIRRORED)


def image_events(
    images: Tensor, *, noise: float = 0.0, jitter: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Returns the events of images; see `load_i2e`.

    Args:
        images: uint8 [N, 3, H, W].
        noise: standard deviation of the threshold, as a share of it, drawn anew for each pixel, step and polarity (the
            mismatch of a sensor's pixels, as v2e models it, arXiv 2006.07722).
        jitter: an event comes up to so many steps early or late, each as likely; none leaves the eight.

    Returns:
        uint8 [N, 8, 2, H, W]; at the border a pixel is compared with itself.
    """
    if noise < 0 or jitter < 0:
        raise ZooError(f"noise and jitter are 0 or more, not {noise:g} and {jitter}")
    brightness = images.float().amax(1)  # the V of HSV, 0 to 255
    padded = pad(brightness[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    height, width = brightness.shape[1:]
    least = _THRESHOLD * (brightness.amax((1, 2)) - brightness.amin((1, 2))).clamp(min=1)[:, None, None]
    steps = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] - brightness for y, x in _DIRECTIONS]
    change = torch.stack([torch.stack((-step, step), dim=1) for step in steps], dim=1)
    least = least[:, None, None]
    if noise:
        # No event without a difference, however low a threshold is drawn.
        least = least * (1 + noise * torch.randn(change.shape, generator=generator)).clamp(min=1e-3)
    events = (change >= least).to(torch.uint8)
    if jitter:
        own = torch.arange(I2E_STEPS)[:, None, None, None]
        late = torch.randint(-jitter, jitter + 1, events.shape, generator=generator)
        events = torch.zeros_like(events).scatter_add_(1, (own + late).clamp(0, I2E_STEPS - 1), events)
    return events


def _kept(
    key: Sequence[object],
    shape: tuple[int, ...],
    frames: Iterator[NDArray[np.uint8]],
    note: Callable[[], dict[str, Any]],
) -> tuple[Tensor, dict[str, Any]]:
    def write(whole: Any) -> dict[str, Any]:
        hit = 0
        for place, frame in zip(whole, frames, strict=True):
            place[:] = frame
            hit += int(np.count_nonzero(frame))
        rate = 100 * hit / max(whole.size, 1)
        tqdm.write(f"{rate:.1f} % of pixels, polarities and steps have events", file=sys.stderr)
        return note()

    return cached("frames", key, shape, write)


# -- the layouts


def _cifar10dvs(root: Path) -> _Folder:
    """CIFAR10-DVS (Li et al. 2017): a folder a class. It has no official split: as in most papers, which use
    SpikingJelly's `split_to_train_test_set`, the first nine tenths of each class by name are for training."""
    found = _by_class(root)
    cut = {label: -(-9 * len(files) // 10) for label, files in found.items()}
    parts = ([f[: cut[c]] for c, f in found.items()], [f[cut[c] :] for c, f in found.items()])
    train, test = map(_samples, parts)
    return _Folder((128, 128), list(found), train, test)


def _dvsgesture(root: Path) -> _Folder:
    """DVS128 Gesture (Amir et al. 2017): recordings of many gestures, and when each begins and ends."""
    parts = []
    for part in ("train", "test"):
        trials = root / f"trials_to_{part}.txt"
        if not trials.is_file():
            raise ZooError(f"{root} has no {trials.name}: expected the folder of DVS128 Gesture's original files")
        samples = []
        for name in filter(None, map(str.strip, read_text(trials).splitlines())):
            file = root / name
            labels = file.with_name(f"{file.stem}_labels.csv")
            if not labels.is_file():
                raise ZooError(f"{labels} is missing, the labels of {name}, which {trials.name} names")
            for number, line in enumerate(read_text(labels).split()[1:], 2):
                try:
                    label, begin, end = map(int, line.split(","))
                except ValueError:
                    raise ZooError(f"{labels}, line {number}: expected class,begin,end, found {line!r:.80}") from None
                if not 1 <= label <= len(_GESTURES):
                    raise ZooError(f"{labels}, line {number}: classes are 1 to {len(_GESTURES)}, not {label}")
                samples.append(_Sample(file, label - 1, begin, end))
        parts.append(samples)
    return _Folder((128, 128), _GESTURES, *parts)


def _nmnist(root: Path) -> _Folder:
    """N-MNIST (Orchard et al. 2015)."""
    return _split_in_folders(root, "Train", "Test", (34, 34))


def _own(root: Path) -> _Folder:
    sensor = root / "sensor.json"
    if not sensor.is_file():
        raise ZooError(f'{sensor} is missing: it says the camera\'s rows and columns, {{"height": 128, "width": 128}}')
    about = parse(_Sensor, read_json(sensor), str(sensor))
    if not (1 <= about.height <= 4096 and 1 <= about.width <= 4096):
        raise ZooError(f"{sensor}: height and width must lie in 1..4096, not {about.height} and {about.width}")
    return _split_in_folders(root, "train", "test", (about.height, about.width))


def _split_in_folders(root: Path, train: str, test: str, sensor: tuple[int, int]) -> _Folder:
    found = [_by_class(root / part) for part in (train, test)]
    if list(found[0]) != list(found[1]):
        differing = sorted(set(found[0]) ^ set(found[1]))[0]
        raise ZooError(f"{root}: only one of {train}/ and {test}/ has the class {differing!r}")
    return _Folder(sensor, list(found[0]), *(_samples(part.values()) for part in found))


def _samples(files: Iterable[Sequence[Path]]) -> list[_Sample]:
    """Returns the recordings of each class as samples, in the fixed random order."""
    return fixed_order([_Sample(file, label) for label, of_class in enumerate(files) for file in of_class])


def _by_class(root: Path) -> dict[str, list[Path]]:
    """Returns the recordings in the folders of a folder, sorted by name."""
    if not root.is_dir():
        raise ZooError(f"no such folder: {root}: expected one with a folder of recordings for each class")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    found = {f.name: sorted(r for r in f.glob("[!.]*") if r.suffix.lower() in SUFFIXES) for f in folders}
    if len(found) < 2 or not all(found.values()):
        empty = next((name for name, files in found.items() if not files), None)
        wrong = f"{root / empty} holds no recording" if empty else f"{root} holds {len(found)} folders of recordings"
        raise ZooError(f"{wrong}: expected one for each class, with files that end in {', '.join(SUFFIXES)}")
    return found


KINDS: dict[str, Callable[[Path], _Folder]] = {
    "cifar10dvs": _cifar10dvs, "dvsgesture": _dvsgesture, "nmnist": _nmnist, "events": _own,
}  # fmt: skip
"""Folders of recordings, by the word in front of their colon."""
