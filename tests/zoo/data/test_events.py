"""Recordings of event cameras: files written byte by byte from their formats, and frames."""

import contextlib
import itertools
import struct
import sys
from pathlib import Path
from unittest.mock import MagicMock

import flatbuffers
import numpy as np
import pytest

from zoo.data.events import Events, edges, frames_as_they_come, read_events, to_frames
from zoo.errors import ZooError

SENSOR = (34, 33)


def recording(count: int, seed: int = 0, sensor: tuple[int, int] = SENSOR, most: int = 2**23) -> Events:
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, most, count))
    x, y = (random.integers(0, side, count).astype(np.int16) for side in sensor[::-1])
    return Events(t, x, y, random.integers(0, 2, count).astype(bool))


def bin_bytes(events: Events) -> bytes:
    """N-MNIST's: x, y, then polarity in the highest of 24 bits and microseconds, the highest byte first."""
    bits = (events.t + (events.p.astype(np.int64) << 23)).tolist()
    places = zip(events.x.tolist(), events.y.tolist(), bits, strict=True)
    return b"".join(bytes((x, y)) + b.to_bytes(3, "big") for x, y, b in places)


def aedat2_bytes(events: Events) -> bytes:
    """jAER's of a DVS128 that lies on its side: polarity in bit 0 (1 for darker), column from bit 1, row from bit 8."""
    lines = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n#End Of ASCII Header\r\n"
    rows = zip(*(v.tolist() for v in events), strict=True)
    return lines + b"".join(struct.pack(">II", 127 - x << 8 | 127 - y << 1 | (not p), t) for t, x, y, p in rows)


def aedat3_bytes(events: Events, overflows: int = 0) -> bytes:
    """Packets of up to 100 events; between them one of another kind, and in each an event that is not valid."""
    data = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for begin in range(0, len(events.t), 100):
        part = list(zip(*(v[begin : begin + 100].tolist() for v in events), strict=True))
        data += struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
        count = len(part) + 1
        data += struct.pack("<hhiiiiii", 1, 1, 8, 4, overflows, count, count, count - 1) + struct.pack("<II", 0, 5)
        data += b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in part)
    return data


def aedat4_bytes(events: Events, compression: int = 0, compress=bytes) -> bytes:
    def finished(builder, root, identifier):
        builder.FinishSizePrefixed(root, file_identifier=identifier)
        return bytes(builder.Output())

    builder = flatbuffers.Builder()
    node = builder.CreateString("<dv/>")
    builder.StartObject(3)
    builder.PrependInt32Slot(0, compression, 0)
    builder.PrependInt64Slot(1, -1, -1)
    builder.PrependUOffsetTRelativeSlot(2, node, 0)
    data = b"#!AER-DAT4.0\r\n" + finished(builder, builder.EndObject(), b"IOHE")
    for begin in range(0, len(events.t), 100):
        part = list(zip(*(v[begin : begin + 100].tolist() for v in events), strict=True))
        builder = flatbuffers.Builder()
        builder.StartVector(16, len(part), 8)
        for t, x, y, p in reversed(part):
            builder.Prep(8, 16)
            builder.Pad(3)
            builder.PrependBool(p)
            builder.PrependInt16(y)
            builder.PrependInt16(x)
            builder.PrependInt64(t)
        elements = builder.EndVector()
        builder.StartObject(1)
        builder.PrependUOffsetTRelativeSlot(0, elements, 0)
        for packet in (compress(b"another packet"), compress(finished(builder, builder.EndObject(), b"EVTS"))):
            data += struct.pack("<ii", 0, len(packet)) + packet
    return data


def zstandard_of(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


def lz4_of(data: bytes) -> bytes:
    return pytest.importorskip("lz4.frame").compress(data)


@contextlib.contextmanager
def one_line_at_most(file: Path):
    error = None
    try:
        yield
    except ZooError as raised:
        error = str(raised)
    assert error is None or (str(file) in error and "\n" not in error)


def same(found: Events, expected: Events) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("a.bin", bin_bytes),
        ("a.aedat", aedat2_bytes),
        ("b.aedat", aedat3_bytes),
        ("c.aedat", aedat4_bytes),
        ("d.aedat4", lambda e: aedat4_bytes(e, 1, lz4_of)),
        ("e.aedat4", lambda e: aedat4_bytes(e, 3, zstandard_of)),
    ],
)
def test_a_file_is_read_as_its_format_says_and_what_is_damaged_is_one_error(name, encode, tmp_path):
    events, file = recording(257), tmp_path / name
    data = encode(events)
    file.write_bytes(data)
    assert same(read_events(file, (128, 128)), events)
    for count in (0, 1):
        file.write_bytes(encode(recording(count)))
        assert same(read_events(file, (128, 128)), recording(count))
    random = np.random.default_rng(1)
    cut = [data[:length] for length in random.integers(1, len(data), 60)]
    noisy = [bytes(np.where(random.random(len(data)) < 0.05, random.integers(0, 256, len(data)), list(data)).astype(
        np.uint8)) for _ in range(60)]  # fmt: skip
    for damaged in cut:
        file.write_bytes(damaged)
        with one_line_at_most(file):
            found = read_events(file, (128, 128))
            assert same(found, Events(*(values[: len(found.t)] for values in events)))  # cut between two events
    for damaged in (*noisy, random.bytes(1000)):
        file.write_bytes(damaged)
        with one_line_at_most(file):
            read_events(file, SENSOR)


def test_packets_of_a_small_file_do_not_fill_the_memory(tmp_path, monkeypatch):
    (tmp_path / "bomb.aedat4").write_bytes(aedat4_bytes(recording(1000), 3, zstandard_of))
    monkeypatch.setattr("zoo.data.events._LARGEST_FILE", 10_000)
    with pytest.raises(ZooError, match="packets of more than 10,000 bytes"):
        read_events(tmp_path / "bomb.aedat4", (128, 128))


def test_times_of_aedat_3_overflow_at_31_bits(tmp_path):
    (tmp_path / "a.aedat").write_bytes(aedat3_bytes(recording(5), overflows=2))
    assert same(read_events(tmp_path / "a.aedat", SENSOR), recording(5)._replace(t=recording(5).t + 2**32))


def test_arrays_of_your_own_are_read_sorted_and_checked(tmp_path):
    events, file = recording(100), tmp_path / "a.npz"
    order = np.random.default_rng(0).permutation(100)
    np.savez(file, **{k: v[order] for k, v in events._asdict().items()})
    found = read_events(file, SENSOR)
    assert sorted(zip(*found, strict=True)) == sorted(zip(*events, strict=True))
    assert (np.diff(found.t) >= 0).all()
    good = events._asdict()
    for wrong, words in [
        ({"t": good["t"] / 3}, "t must hold an integer.*float64"),
        ({"x": good["x"][:5]}, "x must hold"),
        ({"t": good["t"] + 2**62}, "outside 0"),
        ({"x": good["x"] + 100}, r"x = 1\d\d\.\.1\d\d, outside the sensor's 0..32"),
        ({"y": good["y"] - 5}, "y lies in -5"),
        ({"p": good["x"]}, "p lies in"),
        ({"t": np.array([None] * 100)}, "no recording that can be read"),
    ]:
        np.savez(file, **good | wrong)
        with pytest.raises(ZooError, match=words):
            read_events(file, SENSOR)
    np.savez(file, t=good["t"])
    with pytest.raises(ZooError, match="no array 'x'"):
        read_events(file, SENSOR)
    for name, words in [("no.bin", "no such recording"), ("../test", "no such|kind of recording")]:
        with pytest.raises(ZooError, match=words):
            read_events(tmp_path / name, SENSOR)


@pytest.mark.parametrize("by", ["number", "time"])
def test_frames_are_spikingjellys_bit_for_bit(by, monkeypatch):
    pytest.importorskip("spikingjelly")
    monkeypatch.setitem(sys.modules, "torchaudio", MagicMock())  # which its data sets of speech need
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    compared = 0
    for seed in range(60):
        count, most = (int(v) for v in np.random.default_rng(seed).integers((1, 1), (400, 2000)))
        events, steps = recording(count, seed, most=most), 1 + seed % 9
        try:
            theirs = utils.integrate_events_by_fixed_frames_number(events._asdict(), by, steps, *SENSOR)
        except IndexError:  # it takes no empty slice
            continue
        assert np.array_equal(to_frames(events, SENSOR, steps, by), theirs)
        compared += 1
    assert compared > 40


def test_slices_of_few_events_and_of_one_moment():
    assert edges(np.array([], dtype=np.int64), 3, "time").tolist() == [0, 0, 0, 0]
    assert edges(np.array([7, 7, 7]), 2, "time").tolist() == [0, 0, 3]
    assert edges(np.array([0, 1, 10]), 2, "time").tolist() == [0, 2, 3]
    assert edges(np.array([0, 1, 10]), 4, "number").tolist() == [0, 0, 0, 0, 3]
    assert not to_frames(recording(0), SENSOR, 2).any()
    many = Events(*(np.zeros(300, dtype=v.dtype) for v in recording(1)))
    assert to_frames(many, SENSOR, 1).max() == 255
    with pytest.raises(ZooError, match=r"way to cut.*count"):
        to_frames(many, SENSOR, 1, "count")


def test_frames_of_another_size_hold_all_events():
    events = recording(500)
    for size in ((17, 11), (8, 8), (68, 66)):
        frames = to_frames(events, SENSOR, 3, size=size)
        assert frames.shape == (3, 2, *size)
        assert frames.sum() == 500
    y, x = np.array([0, 33, 33]), np.array([0, 0, 32])
    events = Events(np.arange(3), x.astype(np.int16), y.astype(np.int16), np.array([False, True, True]))
    assert np.argwhere(to_frames(events, SENSOR, 1, size=(4, 3))).tolist() == [[0, 0, 0, 0], [0, 1, 3, 0], [0, 1, 3, 2]]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_camera_gives_the_frames_of_its_recording(pieces):
    events = recording(1000)

    def camera():
        return (events.taken(slice(i, i + pieces)) for i in range(0, 1000, pieces))

    frames = list(frames_as_they_come(camera(), SENSOR, every=90, size=(17, 17)))
    expected = to_frames(events, SENSOR, 11, size=(17, 17))
    assert len(frames) == 11
    assert np.array_equal(frames[:10], expected[:10])
    for microseconds in (1, 700, 10**9):
        begins = np.arange(events.t[0], events.t[-1] + 1, microseconds)[:2000]
        expected = [((events.t >= t) & (events.t < t + microseconds)).sum() for t in begins]
        found = itertools.islice(frames_as_they_come(camera(), SENSOR, microseconds=microseconds), len(begins))
        counts = [int(frame.sum()) for frame in found]
        assert counts == expected[: len(counts)]
        assert len(counts) == min(len(begins), int(events.t[-1] - events.t[0]) // microseconds)
    for wrong in ({}, {"every": 0}, {"every": 3, "microseconds": 5}):
        with pytest.raises(ZooError, match="needs events or microseconds"):
            next(frames_as_they_come(camera(), SENSOR, **wrong))
