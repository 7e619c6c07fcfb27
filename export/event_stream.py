"""Follows a recording as a camera would give it: `python -m export.event_stream STEP.onnx RECORDING --every 500`.

The graph is of one time step (`--layout step`) of a network that takes event frames; with `--precision int16` it skips
zeros. After each frame the answer is the mean of the logits of the last frames, as many as the network was trained on.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.data.events import frames_as_they_come, read_events
from zoo.errors import CommandParser, ZooError, count, run_command, shown
from zoo.files import check_writable, write_json
from zoo.provenance import provenance

from .file import metadata, texts
from .run import Stream, read_model

_MOST_FRAMES = 1_000_000


class Answer(NamedTuple):
    """What a network says after a frame."""

    events: int
    """Counts in the frame."""
    logits: NDArray[np.float32]
    """The mean of the last frames, [classes]."""
    milliseconds: float
    """From the frame to these logits."""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m export.event_stream", description="A class after each frame of a recording.")
    parser.add_argument("model", metavar="STEP.onnx", help="a graph of `python -m export --layout step`")
    parser.add_argument("recording", metavar="RECORDING", help=".bin, .aedat, .aedat4 or .npz")
    parser.add_argument("--sensor", type=int, nargs=2, metavar=("H", "W"), help="the camera's size (the network's)")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--every", type=int, metavar="N", help="a frame is N events")
    how.add_argument("--microseconds", type=int, metavar="N", help="a frame is N microseconds")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="threads of ONNX Runtime (1)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json, args.model, args.recording)
    stream, (_, proto) = Stream(args.model, threads=args.threads), read_model(args.model)
    height, width = size = tuple(stream.size[1:])
    sensor = tuple(args.sensor or size)
    events = read_events(args.recording, sensor)
    if args.microseconds and len(events.t) and (events.t[-1] - events.t[0]) // args.microseconds > _MOST_FRAMES:
        raise ZooError(f"{args.recording} has more than {_MOST_FRAMES:,} frames of {args.microseconds} microseconds")
    frames = frames_as_they_come(
        [events], sensor, every=args.every, microseconds=args.microseconds, size=(height, width)
    )
    names = metadata(proto, "labels") if "labels" in texts(proto) else []
    stream.step(np.zeros((1, *stream.size), np.float32))  # the first run of a session takes longer
    stream.reset()
    found = list[dict[str, Any]]()
    for answer in follow(stream, frames):
        best = int(answer.logits.argmax())
        name = shown(names[best]) if best < len(names) else f"class {best}"
        print(f"{len(found):5}  {answer.events:6} events  {answer.milliseconds:7.2f} ms  {name}")
        found.append({"events": answer.events, "class": best, "ms": answer.milliseconds})
    if not found:
        raise ZooError(f"{args.recording} has {len(events.t)} events, too few for one frame")
    times = [frame["ms"] for frame in found]
    p50, p95 = np.percentile(times, (50, 95))
    print(f"{len(found)} frames; a frame takes {p50:.2f} ms (median), {p95:.2f} ms (95 of 100)")
    if args.json:
        result = {key: metadata(proto, key) for key in ("architecture", "precision", "weights_sha256")}
        result |= {"frames": found, "p50_ms": p50, "p95_ms": p95, "threads": args.threads}
        write_json(args.json, result | provenance())


def follow(stream: Stream, frames: Iterable[NDArray[np.uint8]]) -> Iterator[Answer]:
    """Gives a network's answer after each frame of a camera.

    Args:
        stream: of a network for event frames.
        frames: [2, H, W] each, see `zoo.data.events.frames_as_they_come`.
    """
    if stream.encoding != "frames":
        raise ZooError(f"the network takes images (encoding {stream.encoding}), not the frames of an event camera")
    last: deque[NDArray[np.float32]] = deque(maxlen=stream.timesteps)
    for frame in frames:
        begin = time.perf_counter()
        last.append(stream.step(frame[None].astype(np.float32)))
        logits: Any = np.mean(last, axis=0)[0]
        yield Answer(int(frame.sum()), logits, 1000 * (time.perf_counter() - begin))


if __name__ == "__main__":
    run_command(main)
