"""Recordings of event cameras: readers of their files, and how events become frames.

    .bin      N-MNIST, N-Caltech101: 40 bits an event (Orchard et al. 2015, arXiv 1507.07629)
    .aedat    AEDAT 2.0 of a DVS128, as CIFAR10-DVS (Li et al. 2017); AEDAT 3.1, as DVS128 Gesture (Amir et al. 2017)
    .aedat4   AEDAT 4.0: event packets of a FlatBuffers file, plain, or compressed by LZ4 or Zstandard (extra `events`)
    .npz      arrays t, x, y, p of your own

Formats are those of iniVation's description of AEDAT; a file is read as if it were hostile. What goes back in time is
sorted, since a few real recordings do.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ZooError, one_line, one_of
from ..files import user_path
from ..names import Slices

_LARGEST_PACKET, _LARGEST_FILE = 2**26, 2**33
"""Bytes of a packet, and of all packets of a file, that compression may make."""
_END_OF_HEADER = b"#!END-HEADER\r\n"
_AEDAT4 = b"#!AER-DAT4.0\r\n"
_EVENT4 = np.dtype({"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "?"], "offsets": [0, 8, 10, 12],
                    "itemsize": 16})  # fmt: skip


class Events(NamedTuple):
    """N events in order of time."""

    t: NDArray[np.int64]
    """Microseconds, [N]."""
    x: NDArray[np.int16]
    """Column, from the left, [N]."""
    y: NDArray[np.int16]
    """Row, from the top, [N]."""
    p: NDArray[np.bool_]
    """Polarity, True where the pixel became brighter, [N]."""

    def taken(self, index: slice | NDArray[np.intp]) -> "Events":
        return Events(self.t[index], self.x[index], self.y[index], self.p[index])


_END = 2**62
_NONE = Events(np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0, np.int16), np.empty(0, np.bool_))


def read_events(path: str | os.PathLike[str], sensor: tuple[int, int]) -> Events:
    """Reads a recording; the end of its name says what it is.

    Args:
        sensor: rows and columns of the camera.

    Raises:
        ZooError: no such file, none of the formats above, cut short, or events outside the sensor.
    """
    path = user_path(path)
    if not path.is_file():
        raise ZooError(f"no such recording: {path}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise one_of("kind of recording", path.suffix or path.name, list(_READERS))
    try:
        events = reader(path)
    except (ZooError, MemoryError):
        raise
    except Exception as error:  # whatever NumPy and decompressors make of bytes that nobody has checked
        raise ZooError(f"{path} is no recording that can be read: {one_line(error)}") from error
    for name, values, most in (("x", events.x, sensor[1]), ("y", events.y, sensor[0])):
        if len(values) and not 0 <= values.min() <= values.max() < most:
            found = f"{values.min()}..{values.max()}"
            outside = f"{path} has events at {name} = {found}, outside the sensor's 0..{most - 1}"
            raise ZooError(f"{outside}: say the camera's rows and columns (--sensor, or sensor.json of a folder)")
    if len(events.t) and not 0 <= events.t.min() <= events.t.max() < _END:
        raise ZooError(
            f"{path} has events at t = {events.t.min()}..{events.t.max()} microseconds, outside 0..{_END - 1}"
        )
    if len(events.t) and (events.t[1:] < events.t[:-1]).any():
        return events.taken(events.t.argsort(kind="stable"))
    return events


def edges(t: NDArray[np.int64], steps: int, by: Slices) -> NDArray[np.int64]:
    """Returns where the slices of a recording begin and end, as SpikingJelly cuts it (`split_by`, Fang et al. 2023).

    "number": floor(N / steps) events each. "time": floor((t_last - t_first) / steps) microseconds each. The last slice
    takes what is left. A slice may be empty, which SpikingJelly refuses.

    Args:
        t: microseconds, in order, [N].

    Returns:
        [steps + 1]; slice i holds the events from edges[i] up to edges[i + 1].
    """
    count = len(t)
    if by == "number" or not count:
        found = count // steps * np.arange(steps + 1)
    else:
        duration = (int(t[-1]) - int(t[0])) // steps
        found = np.searchsorted(t, int(t[0]) + duration * np.arange(steps + 1))
    found[-1] = count
    return found


def to_frames(
    events: Events, sensor: tuple[int, int], steps: int, by: Slices = "number", size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Counts the events of each slice by polarity and pixel, at most 255.

    Args:
        sensor: rows and columns of the camera.
        steps: T, the number of slices; see `edges`.
        size: rows and columns of the frames, in which each pixel of the sensor falls into the one at its place; those
            of the sensor by default.

    Returns:
        [T, 2, H, W]; darker first.
    """
    if by not in get_args(Slices):
        raise one_of("way to cut a recording", by, list(get_args(Slices)))
    count, ends = _counter(sensor, size or sensor), edges(events.t, steps, by)
    return np.stack([count(events.taken(slice(*ends[i : i + 2]))) for i in range(steps)])


def frames_as_they_come(
    parts: Iterable[Events], sensor: tuple[int, int], *,
    every: int | None = None, microseconds: int | None = None, size: tuple[int, int] | None = None,
) -> Iterator[NDArray[np.uint8]]:  # fmt: skip
    """Makes a frame of every so many events, or of every so many microseconds, while a camera gives events.

    >>> for frame in frames_as_they_come(camera, (128, 128), microseconds=10_000, size=(48, 48)):
    ...     logits = stream.step(frame[None].astype("float32"))  # an `export.Stream`

    Args:
        parts: what the camera gives, in order of time, in pieces of any length.
        sensor: rows and columns of the camera.
        every: events a frame.
        microseconds: time a frame, counted from the first event; a frame may have no event.
        size: rows and columns of the frames; see `to_frames`.

    Yields:
        [2, H, W], darker first, once an event that comes later shows that a frame is whole, or its last event is there;
        what is left at the end makes none.

    Raises:
        ZooError: not one of `every` and `microseconds`, or below 1.
    """
    if (every is None) == (microseconds is None) or (every or microseconds or 0) < 1:
        raise ZooError(f"a frame needs events or microseconds, 1 or more: every={every}, microseconds={microseconds}")
    count, waiting, end = _counter(sensor, size or sensor), _NONE, 0
    for part in parts:
        if microseconds and not len(waiting.t) and not end and len(part.t):
            end = int(part.t[0]) + microseconds
        waiting = _joined([waiting, part])
        while len(waiting.t) and (waiting.t[-1] >= end if microseconds else len(waiting.t) >= (every or 0)):
            cut = int(np.searchsorted(waiting.t, end)) if microseconds else every
            yield count(waiting.taken(slice(cut)))
            waiting, end = waiting.taken(slice(cut, None)), end + (microseconds or 0)


def _counter(sensor: tuple[int, int], size: tuple[int, int]) -> Callable[[Events], NDArray[np.uint8]]:
    """Returns what counts events in a frame [2, H, W]."""
    (rows, columns), (height, width) = sensor, size
    pixel = np.arange(rows)[:, None] * height // rows * width + np.arange(columns) * width // columns

    def count(events: Events) -> NDArray[np.uint8]:
        place = pixel[events.y, events.x] + events.p * (height * width)
        counts = np.bincount(place, minlength=2 * height * width)
        return np.minimum(counts, 255).astype(np.uint8).reshape(2, height, width)

    return count


# -- the formats


def _read_bin(path: Path) -> Events:
    """Columns in the first byte, rows in the second; polarity in the top bit of the other three, then microseconds."""
    raw = _records(path, 0, 5)
    t = (raw[:, 2] & 127).astype(np.int64) << 16 | raw[:, 3].astype(np.int64) << 8 | raw[:, 4]
    return Events(t, raw[:, 0].astype(np.int16), raw[:, 1].astype(np.int16), raw[:, 2] > 127)


def _read_aedat(path: Path) -> Events:
    """Of version 2: an address, whose bits are polarity (0 for brighter), column and row of a DVS128 that lies on its
    side, and microseconds; CIFAR10-DVS is seen upright as SpikingJelly and tonic turn it."""
    with path.open("rb") as file:
        start = file.readline(32)
        if start.startswith(b"#!AER-DAT3"):
            return _read_aedat3(path)
        if start.startswith(_AEDAT4):
            return _read_aedat4(path)
        if not start.startswith(b"#!AER-DAT2"):
            raise ZooError(f"{path} is no AEDAT file of version 2, 3 or 4: it starts with {start[:16]!r}")
        begin = len(start)
        while (line := file.readline(2**16)).startswith(b"#"):
            begin += len(line)
    address, t = _records(path, begin, 8).view(">u4").T
    x, y = ((address >> shift & 127).astype(np.int16) for shift in (1, 8))
    return Events(t.astype(np.int64), 127 - y, 127 - x, address & 1 == 0)


def _records(path: Path, begin: int, size: int) -> NDArray[np.uint8]:
    """Returns a file of equal records behind a header of `begin` bytes, [N, size]."""
    raw = np.fromfile(path, np.uint8, offset=begin)
    if rest := len(raw) % size:
        raise ZooError(f"{path} is cut short: its last event has {rest} of {size} bytes")
    return raw.reshape(-1, size)


def _joined(parts: list[Events]) -> Events:
    return Events(*(np.concatenate(values) for values in zip(*parts, strict=True))) if parts else _NONE


def _read_aedat3(path: Path) -> Events:
    """Packets of a header, little-endian (kind, source, bytes an event, offset of the time, its overflows, capacity,
    number, valid), and events: polarity ones have valid bit, polarity, row and column in 32 bits, then microseconds."""
    data = path.read_bytes()
    begin, parts = data.find(_END_OF_HEADER), []
    if begin < 0:
        raise ZooError(f"{path} is cut short: its header has no end")
    begin += len(_END_OF_HEADER)
    while begin < len(data):
        if len(data) - begin < 28:
            raise ZooError(f"{path} is cut short in the header of a packet, at byte {begin}")
        kind, _, size, _, overflows, capacity, number, _ = struct.unpack_from("<hhiiiiii", data, begin)
        begin += 28
        if size < 8 or not 0 <= number <= capacity or overflows < 0 or size * capacity > len(data) - begin:
            raise ZooError(f"{path} is cut short or damaged in the packet at byte {begin - 28}")
        if kind == 1:
            words = np.frombuffer(data, "<u4", size * number // 4, begin).reshape(number, size // 4)
            word = words[words[:, 0] & 1 == 1]
            bits, t = word[:, 0], word[:, 1].astype(np.int64) + (overflows << 31)
            x, y = ((bits >> shift & 0x7FFF).astype(np.int16) for shift in (17, 2))
            parts.append(Events(t, x, y, bits >> 1 & 1 == 1))
        begin += size * capacity
    return _joined(parts)


def _read_aedat4(path: Path) -> Events:
    """A header and packets, each a FlatBuffers table with its size in front."""
    from flatbuffers.table import Table

    data = path.read_bytes()

    def table(buffer: bytes, what: str) -> Table:
        if len(buffer) < 12 or buffer[8:12] != what.encode():
            raise ZooError(f"{path} is no AEDAT 4 file: its {what} is not there")
        return Table(buffer, 4 + struct.unpack_from("<I", buffer, 4)[0])

    def field(of: Table, number: int, form: str, default: int) -> int:
        offset = of.Offset(4 + 2 * number)
        return int(struct.unpack_from(form, of.Bytes, of.Pos + offset)[0]) if offset else default

    begin = len(_AEDAT4)
    (size,) = struct.unpack_from("<I", data, begin)
    header = table(data[begin : begin + 4 + size], "IOHE")
    expand, end = _decompressor(field(header, 0, "<i", 0), path), field(header, 1, "<q", -1)
    begin, end, parts, total = begin + 4 + size, end if end >= 0 else len(data), [], 0
    while begin < min(end, len(data)):
        size = struct.unpack_from("<ii", data, begin)[1]
        begin += 8
        if not 0 <= size <= len(data) - begin:
            raise ZooError(f"{path} is cut short in the packet at byte {begin - 8}")
        packet = expand(data[begin : begin + size])
        if (total := total + len(packet)) > _LARGEST_FILE:
            raise ZooError(f"{path} has packets of more than {_LARGEST_FILE:,} bytes: cut the recording in parts")
        if packet[8:12] == b"EVTS":
            events = table(packet, "EVTS")
            vector = events.Offset(4)
            place, count = (events.Vector(vector), events.VectorLen(vector)) if vector else (0, 0)
            found = np.frombuffer(packet, _EVENT4, count, place)
            parts.append(Events(found["t"], found["x"], found["y"], found["p"]))
        begin += size
    return _joined(parts)


def _decompressor(compression: int, path: Path) -> Callable[[bytes], bytes]:
    """Returns what undoes the compression of an AEDAT 4 file: none, LZ4 (1, 2) or Zstandard (3, 4)."""
    try:
        if compression == 0:
            return lambda packet: packet
        if compression in (1, 2):
            import lz4.frame

            return lambda packet: lz4.frame.LZ4FrameDecompressor().decompress(packet, max_length=_LARGEST_PACKET)
        if compression in (3, 4):
            import zstandard

            return lambda packet: zstandard.ZstdDecompressor().stream_reader(packet).read(_LARGEST_PACKET)
    except ImportError as error:
        raise ZooError(f"{path} is compressed, and {error.name} is not installed: pip install -e '.[events]'") from None
    raise ZooError(f"{path} is compressed in a way that nobody knows: {compression}")


def _read_npz(path: Path) -> Events:
    with np.load(path, allow_pickle=False) as file:
        if missing := [name for name in Events._fields if name not in file.files]:
            raise ZooError(f"{path} has no array {missing[0]!r}: expected t (microseconds), x, y and p (0 or 1)")
        return Events(*_checked(path, ((name, file[name]) for name in Events._fields)))


def _checked(path: Path, arrays: Iterator[tuple[str, NDArray[Any]]]) -> Iterator[Any]:
    """Gives the arrays of a file of the user's in the types of `Events`, one by one, since each may be large."""
    count = None
    for (name, values), kind in zip(arrays, (np.int64, np.int16, np.int16, np.bool_), strict=True):
        count = values.size if count is None else count
        if values.shape != (count,) or values.dtype.kind not in "iub":
            found = f"{values.dtype} {list(values.shape)}"
            raise ZooError(f"{path}: {name} must hold an integer for each of the {count} events, not {found}")
        low, high = (int(values.min()), int(values.max())) if count else (0, 0)
        most = 1 if name == "p" else np.iinfo(kind).max
        if low < (-1 if name == "p" else 0) or high > most:
            raise ZooError(f"{path}: {name} lies in {low}..{high}, expected 0..{most}")
        yield values > 0 if name == "p" else values.astype(kind, copy=False)


_READERS: dict[str, Callable[[Path], Events]] = {
    ".bin": _read_bin, ".aedat": _read_aedat, ".aedat4": _read_aedat4, ".npz": _read_npz,
}  # fmt: skip
SUFFIXES = tuple(_READERS)
"""How the names of recordings end, in lower case."""
