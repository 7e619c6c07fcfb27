"""Measures what stopping early costs and saves: `python -m export.early_exit FILE --data cifar10`.

After each time step, the network's answer so far is the mean of the logits. An image stops at the first step at which
the probability of its class (softmax of that mean) reaches a threshold, and at the last step anyway.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import CommandParser, ZooError, count, run_command, text_table
from zoo.files import check_writable, sha256_of, write_json
from zoo.plugins import add_plugin_option
from zoo.provenance import provenance

from .bench import File, check_fit, read_file
from .file import STEP_LOGITS, add_step_logits
from .images import Loaded, load_images, normalise
from .run import Runner

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_CHUNK = 64


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m export.early_exit", description="Accuracy and time steps of stopping early.")
    parser.add_argument("model", metavar="FILE", help="a flat or function graph from `python -m export`")
    parser.add_argument("--data", required=True, help="as for python -m export")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N images only")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS, metavar="P", help="confidences")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json, args.model, args.data)
    file = read_file(args.model)
    data = load_images(args.data, args.data_dir, args.limit, file.ours().cfg)
    result = early_exit(file, data, args.thresholds)
    if args.json:
        write_json(args.json, result | {"dataset": data.dataset} | provenance())
    print(table(result))


def early_exit(file: File, data: Loaded, thresholds: Any = THRESHOLDS) -> dict[str, Any]:
    """Returns accuracy in percent and mean time steps at each threshold of confidence, in 0 .. 1, of a graph from
    `to_onnx` that runs all steps, on images with labels."""
    if bad := [p for p in thresholds if not 0 <= p <= 1]:
        raise ZooError(f"a threshold of confidence lies in 0..1, not {bad[0]:g}")
    if data.labels is None:
        raise ZooError("early exit is measured on images with labels, and these have none")
    check_fit(file, data)
    logits = step_logits(file, data.images)
    rows = [exits(logits, data.labels, threshold) for threshold in thresholds]
    about = file.ours()
    return {
        "model": about.architecture, "tag": about.tag, "sha256": sha256_of(file.data), "images": len(data.images),
        "timesteps": about.timesteps, "rows": rows,
    }  # fmt: skip


def step_logits(file: File, images: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the logits of every step, [N, T, classes]."""
    about, proto = file.ours(), file.proto
    if STEP_LOGITS not in (output.name for output in proto.graph.output):
        proto = add_step_logits(proto)
    run, found = Runner(proto), []
    for i in tqdm(range(0, len(images), _CHUNK), desc="early exit", disable=None, leave=False):
        chunk = normalise(images[i : i + _CHUNK], about.mean, about.std)
        (logits,) = run(chunk, [STEP_LOGITS])
        if logits.shape != (len(chunk), about.timesteps, about.num_classes) or not np.isfinite(logits).all():
            raise ZooError(f"{file.path} gives no finite logits for each image and step: nothing was measured")
        found.append(logits)
    return np.concatenate(found)


def exits(logits: NDArray[np.float32], labels: NDArray[Any], threshold: float) -> dict[str, float]:
    """Returns what a threshold does: top1 in percent, mean_steps."""
    steps = logits.shape[1]
    so_far = logits.cumsum(1) / np.arange(1, steps + 1)[:, None]
    shifted = np.exp(so_far - so_far.max(2, keepdims=True))
    sure = (shifted / shifted.sum(2, keepdims=True)).max(2) >= threshold
    sure[:, -1] = True
    stop = sure.argmax(1)
    right = int((so_far[np.arange(len(labels)), stop].argmax(1) == labels).sum())
    mean_steps = (int(stop.sum()) + len(labels)) / len(labels)
    return {"threshold": float(threshold), "top1": 100 * right / len(labels), "mean_steps": mean_steps}


def table(result: dict[str, Any]) -> str:
    """Returns the measurement for people."""
    name = ".".join(filter(None, (result["model"], result["tag"])))
    rows = [(f"{row['threshold']:g}", f"{row['top1']:.2f}", f"{row['mean_steps']:.2f}") for row in result["rows"]]
    head = f"{name}, {result['images']} images, at most {result['timesteps']} time steps\n"
    return head + text_table(["confidence", "top-1 %", "mean steps"], rows, right=range(3))


if __name__ == "__main__":
    run_command(main)
