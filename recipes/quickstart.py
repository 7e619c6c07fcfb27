"""What quickstart.sh shows: ten digits as picture files, and a page of what became of them.

python -m recipes.quickstart digits OUT    writes ten of the test images, one of each class, as PNG files
python -m recipes.quickstart page OUT      makes OUT/index.html of the files that the other commands left there
"""

import html
from pathlib import Path
from typing import Any

from zoo.data import load_dataset
from zoo.errors import CommandParser, run_command
from zoo.files import atomic_write, read_json

_NAMES = {"fp32.onnx": "float32", "int8.onnx": "int8", "int16.onnx": "event-driven", "relu": "its ReLU twin, one step"}
_CELL = 14
_STYLE = """\
:root { color-scheme: light dark; --ink: light-dark(#1f2328, #e6e6e6); --hot: light-dark(#c2410c, #fb923c); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { display: inline-block; margin: 0 .6rem .6rem 0; text-align: center; }
figure img { width: 72px; image-rendering: pixelated; display: block; }
figcaption b { color: var(--hot); }
svg { max-width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--ink); }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; } td:first-child, th:first-child { text-align: left; }
pre { overflow-x: auto; background: #8882; padding: .8rem; border-radius: 6px; }
"""


def write_digits(out: Path) -> None:
    """Writes the first test image of each of scikit-learn's ten digits as OUT/digits/N.png."""
    from PIL import Image

    data = load_dataset("digits")
    (out / "digits").mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        image = data.test_images[(data.test_labels == digit).nonzero()[0, 0]]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(out / "digits" / f"{digit}.png")


def page(out: Path) -> str:
    """Returns the page of predicted.json (of predict --spikes), run/result.json, times.json (of bench-ort)."""
    found, result, times = (read_json(out / name) for name in ("predicted.json", "run/result.json", "times.json"))
    figures = "".join(
        f'<figure><img src="digits/{Path(one["image"]).name}" alt="the digit {Path(one["image"]).stem}">'
        f"<figcaption><b>{html.escape(one['top'][0]['label'])}</b> {100 * one['top'][0]['probability']:.0f} %<br>"
        f"{sum(map(sum, one['spikes'].values())):,}</figcaption></figure>"
        for one in found
    )
    rows = "".join(
        f"<tr><td>{_NAMES.get(one['name'], one['name'])}</td><td>{one['latency'][0]['p50_ms']:.2f}</td>"
        f"<td>{'' if one['top1'] is None else format(one['top1'], '.2f')}</td><td>{one['bytes'] / 1e6:.2f}</td></tr>"
        for one in times["subjects"]
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>snn-zoo: quickstart</title>
<style>{_STYLE}</style>
<h1>A spiking network reads digits</h1>
<p>{html.escape(result["model"])}, trained on CIFAR-10 and then for {result["epochs"]} epochs on digits:
<b>{result["top1"]:.2f} %</b> of {result["images"]} test images are right, with {result["spikes_per_image"]:,.0f}
spikes an image at T = {result["timesteps"]}.
Below each digit stand its predicted class and its spikes.</p>
{figures}
<h2>Spikes by layer and step</h2>
<p>A column is a time step of a digit, a row a layer, from the image (top) to the classes; the darker, the more of the
layer's most spikes.</p>
{_spikes(found)}
<h2>Time of one image</h2>
<table><tr><th>ONNX file<th>ms<th>top-1 (%)<th>MB</tr>{rows}</table>
<p>Medians on {html.escape(str(times["machine"]["cpu"]))}, one thread, batch 1.</p>
<h2>Next</h2>
<pre>snn-zoo finetune max_resnet18_w32_gs.t4_cifar10 DIR   # your images, of any size, as DIR/CLASS/*
snn-zoo export runs/NAME -o model.onnx                # a file that runs without snn-zoo
snn-zoo demo site --serve                             # draw or film a picture and watch the spikes, in a browser</pre>
"""


def _spikes(found: list[dict[str, Any]]) -> str:
    """Returns the counts of `predict` as a picture."""
    layers = list(found[0]["spikes"])
    most = {layer: max(max(one["spikes"][layer]) for one in found) or 1 for layer in layers}
    steps = len(found[0]["spikes"][layers[0]])
    cells, left = [], 120
    for i, one in enumerate(found):
        x = left + i * (steps * _CELL + 6)
        cells.append(f'<text x="{x}" y="12">{html.escape(Path(one["image"]).stem)}</text>')
        for row, layer in enumerate(layers):
            for step, count in enumerate(one["spikes"][layer]):
                place = f'x="{x + step * _CELL}" y="{18 + row * _CELL}" width="{_CELL - 1}" height="{_CELL - 1}"'
                title = f"<title>{html.escape(layer)}, step {step + 1}: {count:,} spikes</title>"
                cells.append(f'<rect {place} fill="var(--hot)" opacity="{count / most[layer]:.2f}">{title}</rect>')
    names = [f'<text x="0" y="{29 + row * _CELL}">{html.escape(layer)}</text>' for row, layer in enumerate(layers)]
    width, height = left + len(found) * (steps * _CELL + 6), 20 + len(layers) * _CELL
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(names + cells)}</svg>'


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m recipes.quickstart", description="Parts of quickstart.sh.")
    parser.add_argument("what", choices=["digits", "page"])
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the quickstart")
    args = parser.parse_args(argv)
    if args.what == "digits":
        write_digits(args.out)
    else:
        atomic_write(args.out / "index.html", page(args.out))


if __name__ == "__main__":
    run_command(main)
