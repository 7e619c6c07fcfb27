"""The model card of a release: README.md with its metadata, and the results in the form of `.eval_results`.

Made from the release alone, so that the same release gives the same bytes.
"""

from collections.abc import Iterable
from typing import Any

import timm

from ..data import dataset_name
from ..errors import shown
from ..files import dump_yaml
from ..result import Ancestor, when
from ..scaling.spec import resolve_scaling
from ..schema import fits
from .release import Release

# Hub data set and its name. A data set that is not here gets no entry that a leaderboard would read.
_DATASETS = {"cifar10": ("uoft-cs/cifar10", "CIFAR-10"), "cifar100": ("uoft-cs/cifar100", "CIFAR-100")}
LICENSE = "apache-2.0"
"""Of the zoo's own checkpoints, as the Hub spells it."""
_TASK = "image-classification"
# Key, title and decimals of what a result may hold; leaderboard/README.md defines them.
_METRICS = [
    ("top1", "top-1 (%)", 2),
    ("top5", "top-5 (%)", 2),
    ("spikes_per_image", "spikes per image", 0),
    ("Effective_ACs", "ACs per image", 0),
    ("Effective_MACs", "MACs per image", 0),
    ("energy_uj", "energy at 45 nm (µJ per image)", 2),
]
_SNN_ZOO = """\
@software{snnzoo,
  title = {snn-zoo: a model zoo of spiking neural networks},
  author = {{The snn-zoo developers}}
}
"""
_GRADIENT_SCALING = """\
@misc{park2023gradient,
  title = {Gradient Scaling on Deep Spiking Neural Networks with Spike-Dependent Local Information},
  author = {Park, Seongsik and others},
  year = {2023},
  eprint = {2308.00558},
  archivePrefix = {arXiv}
}
"""


def card(release: Release, repo: str | None, license: str = LICENSE) -> str:
    """README.md of a release in the repository `repo`: metadata, then what the network is, does and costs. A bundled
    one that is in no repository is loaded by its name."""
    parts = [part(release) for part in (_plugins, _training, _results, _latency, _files, _citation)]
    text = "\n".join(
        [
            f"# {release.name}\n\n{_summary(release)}",
            _usage(release, f"hf-hub:{repo}" if repo else release.name),
            *filter(None, parts),
        ]
    )
    return f"---\n{dump_yaml(_metadata(release, license))}---\n\n{text}"


def eval_results(release: Release) -> dict[str, str]:
    """`.eval_results/*.yaml`: a file for each data set of the Hub that has a test result, from its name to its text."""
    files = {}
    for result in _accuracies(release):
        dataset = _DATASETS.get(result["dataset"])
        if dataset and result["split"] == "test":
            entry = {
                "dataset": {"id": dataset[0], "task_id": _TASK},
                "value": round(result["top1"], 4),
                "date": result["date"],
                "notes": f"top-1 %, {result['images']} test images, T = {result['timesteps']}",
            }
            files[f"{result['dataset']}.yaml"] = dump_yaml([entry])
    return files


def _metadata(release: Release, license: str) -> dict[str, Any]:
    results = _accuracies(release)
    dataset = _DATASETS.get(_dataset(release))
    index = [{"name": release.name, "results": [_index_entry(result) for result in results]}]
    metadata = {
        "license": license,
        "library_name": "snn-zoo",
        "pipeline_tag": _TASK,
        "tags": [_TASK, "spiking-neural-network", "snn-zoo", "timm"] + (["onnx"] if _onnx_files(release) else []),
        "datasets": [dataset[0]] if dataset else None,
        "metrics": ["accuracy"] if results else None,
        "model-index": index if results else None,
    }
    return {key: value for key, value in metadata.items() if value is not None}


def _index_entry(result: dict[str, Any]) -> dict[str, Any]:
    kind, title = _DATASETS.get(result["dataset"], (result["dataset"], result["dataset"]))
    metrics = [{"type": "accuracy", "name": "Top-1 accuracy (%)", "value": round(result["top1"], 4)}]
    if result["top5"] is not None:
        metrics.append({"type": "accuracy", "name": "Top-5 accuracy (%)", "value": round(result["top5"], 4)})
    if result["spikes_per_image"] is not None:
        metrics.append({"type": "spikes", "name": "Spikes per image", "value": round(result["spikes_per_image"])})
    dataset = {"type": kind, "name": title, "split": result["split"]}
    return {"task": {"type": _TASK, "name": "Image Classification"}, "dataset": dataset, "metrics": metrics}


def _summary(release: Release) -> str:
    config = release.config
    what = (timm.models.model_entrypoint(config["architecture"]).__doc__ or "").strip()
    dataset = _dataset(release) or "an unknown data set"
    lines = [
        f"A spiking neural network for images of {'x'.join(map(str, config['pretrained_cfg']['input_size']))} values "
        f"in {config['num_classes']} classes, trained on {_DATASETS.get(dataset, ('', dataset))[1]} with "
        f"{config['model_args'].get('timesteps', 'its default number of')} time steps. {what}"
    ]
    if test := next((result for result in _accuracies(release) if result["split"] == "test"), None):
        spikes = test["spikes_per_image"]
        cost = "" if spikes is None else f", with {spikes:,.0f} spikes per image"
        lines.append(f"Top-1 on the test set: **{test['top1']:.2f} %**{cost}.")
    return "\n".join(lines) + "\n"


def _usage(release: Release, name: str) -> str:
    cfg, classes = release.config["pretrained_cfg"], release.config["num_classes"]
    if not classes or release.config["model_args"].get("encoding", "direct") != "direct":
        return f"""## Use

With snn-zoo installed, `zoo.load("{name}")` is the network, in evaluation mode; its input is what
`zoo.network.SpikingNetwork.forward` says for its encoding.
"""
    shape = ", ".join(map(str, cfg["input_size"]))
    return f"""## Use

With snn-zoo installed:

```python
import timm
import torch
import zoo  # registers the architectures with timm

model = timm.create_model("{name}", pretrained=True).eval()  # or zoo.load("{name}")
images = torch.rand(1, {shape})  # pixels from 0 to 1
mean, std = torch.tensor({list(cfg["mean"])}), torch.tensor({list(cfg["std"])})
logits = model((images - mean[:, None, None]) / std[:, None, None])  # [1, {classes}]
label = logits.argmax(1).item()
print(model.pretrained_cfg.get("label_names", range({classes}))[label])
```
"""


def _plugins(release: Release) -> str:
    if not release.config["plugins"]:
        return ""
    files = [plugin["file"] for plugin in release.config["plugins"]]
    load = "\n".join(f"zoo.load_plugin({file!r})" for file in files)
    return f"""It was made with code of its author's that is not in this repository. With the file at hand, run first:

```python
{load}  # on the command line, --plugin
```
"""


def _training(release: Release) -> str:
    source = next((r for r in release.results if r["kind"] == "accuracy" and r["train_seconds"]), {})
    recipe = release.recipe
    rows = {
        "command": f"`{source['command']}`" if source.get("command") else None,
        "seed": recipe.get("seed"),
        "started from": _started_from(release),
        "epochs": recipe.get("epochs"),
        "commit": source.get("commit"),
        "data": f"{_dataset(release)}, sha256 {source['data_sha256']}" if source.get("data_sha256") else None,
        "training images": source.get("train_images"),
        "seconds": source.get("train_seconds"),
        "machine": _machine(source) if source else None,
        "date": source.get("date"),
        "plugins": ", ".join(f"{p['file']}, sha256 {p['sha256']}" for p in release.config["plugins"] or []) or None,
        "weights": f"sha256 {release.config['weights_sha256']}",
    }
    table = _table(["", ""], [[key, value] for key, value in rows.items() if value is not None])
    where = "recipe.yaml holds the settings, config.json the network as it was built, summary.csv a row for each epoch."
    return f"## How it was trained\n\n{where}\n\n{table}"


def _started_from(release: Release) -> str | None:
    """The trainings behind this one, nearest first; where the recipe alone tells, the nearest as it calls it."""
    chain = release.config.get("started_from")
    if not chain or not fits(list[Ancestor], chain):
        init = release.recipe.get("init")
        return None if init is None else str(init)
    steps = []
    for ancestor in chain:
        known = [(ancestor["epochs"], "epochs {:,}"), (ancestor["train_seconds"], "seconds {:,.1f}")]
        facts = ", ".join(form.format(value) for value, form in known if value is not None)
        steps.append(f"{ancestor['name']} ({facts})" if facts else ancestor["name"])
    return ", before that ".join(steps)


def _results(release: Release) -> str:
    results = _accuracies(release)
    if not results:
        return "## Results\n\nNo accuracy was published with these weights.\n"
    # Results from before a metric was counted lack it.
    known = [column for column in _METRICS if any(result.get(column[0]) is not None for result in results)]
    rows = []
    for result in results:
        dataset = _DATASETS.get(result["dataset"], ("", result["dataset"]))[1]
        numbers = (_number(result.get(key), digits) for key, _, digits in known)
        rows.append([dataset, result["split"], result["images"], *numbers])
    head = ["data set", "split", "images", *(title for _, title, _ in known)]
    return f"## Results\n\n{_table(head, rows)}"


def _latency(release: Release) -> str:
    rows = [
        [row["batch"], row["threads"], _number(row["p50_ms"], 2), _number(row["p95_ms"], 2), *where]
        for result in release.results
        if result["kind"] == "onnx"
        for where in [[result["provider"], _machine(result)]]
        for row in result["latency"]
    ]
    if not rows:
        return ""
    head = ["batch", "threads", "p50 (ms)", "p95 (ms)", "provider", "machine"]
    return f"## Latency in ONNX Runtime\n\n{_table(head, rows)}"


def _files(release: Release) -> str:
    what = {
        "model.safetensors": "the weights",
        "config.json": "what timm and snn-zoo rebuild the network from",
        "recipe.yaml": "the settings of the training",
        "summary.csv": "its log",
        "result.json": "its result",
    } | dict.fromkeys(_onnx_files(release), "the network as an ONNX graph")
    rows = [[f"`{name}`", what.get(name, "a measurement")] for name in sorted(release.files)]
    return f"## Files\n\n{_table(['file', 'what it is'], rows)}"


def bibtex(scaled: bool) -> str:
    """BibTeX of snn-zoo, and of gradient scaling where the training used it."""
    return _SNN_ZOO + (f"\n{_GRADIENT_SCALING}" if scaled else "")


def _citation(release: Release) -> str:
    text = "## Citation\n\nCite snn-zoo, and the paper of the architecture, which its file in zoo/models names."
    config = release.config
    scaled = "unregistered" in config or resolve_scaling(config["model_args"].get("scaling")) is not None
    if scaled:
        text += " The training used gradient scaling by local spike information (arXiv:2308.00558); the rule is "
        text += "snn-zoo's reading of it."
    return f"{text}\n\n```bibtex\n{bibtex(scaled)}```\n"


def _dataset(release: Release) -> str:
    """What the recipe says of the data set, without a folder's place."""
    return dataset_name(str(release.recipe.get("dataset") or ""))


def _accuracies(release: Release) -> list[dict[str, Any]]:
    """One result for each data set and split: the one on most images, of these the newest."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    accuracies = [result for result in release.results if result["kind"] == "accuracy"]
    for result in sorted(accuracies, key=lambda result: (result["images"], when(result))):
        best[result["dataset"], result["split"]] = result
    return [best[key] for key in sorted(best)]


def _onnx_files(release: Release) -> list[str]:
    return [name for name in release.files if name.endswith(".onnx")]


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return str(machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores")


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in [head, ["---"] * len(head), *rows])


def _cell(value: Any) -> str:
    return " ".join(shown("" if value is None else value, 2000).split()).replace("|", "\\|")
