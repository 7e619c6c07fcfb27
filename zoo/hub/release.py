"""What is published of a trained network: the files of a run directory, checked against each other, and their card.

Everything must speak of the same weights: a result or an ONNX file of others is refused. The card, README.md with its
metadata, is made of the release alone, so that the same release gives the same bytes.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
from huggingface_hub import EvalResult, ModelCardData

from ..checkpoint import CONFIG, WEIGHTS, is_pickle, read_checkpoint
from ..data import dataset_name
from ..errors import ZooError, shown
from ..files import dump_yaml, read_bytes
from ..result import KINDS, Ancestor, read, when
from ..scaling.spec import resolve_scaling
from ..schema import fits

RECIPE, LOG, RESULT = "recipe.yaml", "summary.csv", "result.json"
RESULTS = "results/"
_LIMIT = 2**30  # bytes of a file
# Hub data set and its name.
_DATASETS = {"cifar10": ("uoft-cs/cifar10", "CIFAR-10"), "cifar100": ("uoft-cs/cifar100", "CIFAR-100")}
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
_GRADIENT_SCALING = """
@misc{park2023gradient,
  title = {Gradient Scaling on Deep Spiking Neural Networks with Spike-Dependent Local Information},
  author = {Park, Seongsik and others},
  year = {2023},
  eprint = {2308.00558},
  archivePrefix = {arXiv}
}
"""


class Release(NamedTuple):
    """The files of a release but its card, by their path in the repository, and what the card is made from."""

    files: dict[str, bytes]
    config: dict[str, Any]
    recipe: dict[str, Any]
    results: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """`architecture.tag`."""
        return f"{self.config['architecture']}.{self.config['pretrained_cfg']['tag']}"

    @property
    def dataset(self) -> str:
        """What the recipe says of the data set, without a folder's place."""
        return dataset_name(str(self.recipe.get("dataset") or ""))

    @property
    def accuracies(self) -> list[dict[str, Any]]:
        """One result for each data set and split: the one on most images, of these the newest."""
        best: dict[tuple[str, str], dict[str, Any]] = {}
        found = [result for result in self.results if result["kind"] == "accuracy"]
        for result in sorted(found, key=lambda result: (result["images"], when(result))):
            best[result["dataset"], result["split"]] = result
        return [best[key] for key in sorted(best)]


def collect(run: Path, onnx: Sequence[Path] = (), results: Sequence[Path] = ()) -> Release:
    """Reads and checks a release.

    Args:
        run: a finished run directory of `recipes.train`: model.safetensors, config.json, summary.csv, and result.json
            if it was measured. The recipe is that of config.json: recipe.yaml also says where the run happened.
        onnx: files of `python -m export` from these weights.
        results: result files of `recipes.validate` and `export.bench_ort`, of these weights.

    Raises:
        ZooError: a file is missing, broken, of other weights, or cannot be published under its name.
    """
    if missing := [name for name in (WEIGHTS, CONFIG, LOG) if not (run / name).is_file()]:
        raise ZooError(f"{run} is no finished run: it lacks {', '.join(missing)}")
    config = read_checkpoint(run).config
    if not config["pretrained_cfg"].get("tag"):
        raise ZooError(f"{run / CONFIG} names no tag: a release is called architecture.tag")
    sha256 = config["weights_sha256"]
    recipe = config.get("recipe")
    if not isinstance(recipe, dict):
        raise ZooError(f"{run / CONFIG} holds no recipe: `zoo.save_checkpoint(..., recipe={{...}})` writes it there")
    files = {name: read_bytes(run / name, _LIMIT) for name in (WEIGHTS, CONFIG, LOG)}
    files[RECIPE] = dump_yaml(recipe).encode()
    measured = []
    if (run / RESULT).is_file():
        measured.append(_read_result(run / RESULT, config))
        files[RESULT] = read_bytes(run / RESULT, _LIMIT)
    for path in results:
        measured.append(_read_result(path, config))
        _add(files, RESULTS + path.name, path, ".json")
    for path in onnx:
        _check_onnx(path, sha256)
        _add(files, path.name, path, ".onnx")
    return Release(files, config, recipe, measured)


def _add(files: dict[str, bytes], name: str, path: Path, suffix: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.name) or path.suffix != suffix or is_pickle(path.name):
        raise ZooError(f"cannot publish {path} under its name: expected letters, digits, - _ . and {suffix} at the end")
    if name in files:
        raise ZooError(f"two files would be published as {name}: rename {path}")
    files[name] = read_bytes(path, _LIMIT)


def _read_result(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    result = read(path, {kind: KINDS[kind] for kind in ("accuracy", "onnx")})
    if result.get("partial"):
        raise ZooError(f"{path} is of {result['images']} images, a part of the test set: measure without --limit")
    how = "measure these with `python -m recipes.validate` or `export.bench_ort`"
    _check_weights(result["weights_sha256"], config["weights_sha256"], f"{path} was measured on", how)
    if (steps := config["model_args"].get("timesteps")) != result["timesteps"]:
        raise ZooError(f"{path} was measured with {result['timesteps']} time steps, and the network has {steps}: {how}")
    return result


def _check_onnx(path: Path, weights_sha256: str) -> None:
    import onnx  # slow to import, and only needed here
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load_model_from_string(read_bytes(path, _LIMIT))
    except DecodeError as error:
        raise ZooError(f"cannot read {path} as ONNX: {' '.join(str(error).split())}") from error
    found = {prop.key: prop.value for prop in proto.metadata_props}.get("weights_sha256")
    _check_weights(found, weights_sha256, f"{path} was exported from", "export these with `python -m export`")


def _check_weights(found: str | None, expected: str, what: str, how: str) -> None:
    if found != expected:
        raise ZooError(f"{what} other weights (sha256 {str(found)[:12]}..., here {expected[:12]}...): {how}")


def card(release: Release, repo: str, license: str | None = None) -> str:
    """README.md of a release in the repository `repo`: metadata, then what the network is, does and costs."""
    parts = [part(release) for part in (_plugins, _training, _results, _latency, _citation)]
    head = f"# {release.name}\n\n{_summary(release)}"
    text = "\n".join([head, _usage(release, f"hf-hub:{repo}"), *filter(None, parts)])
    return f"---\n{_metadata(release, license).to_yaml()}\n---\n\n{text}"


def _metadata(release: Release, license: str | None) -> ModelCardData:
    entries = []
    for result in release.accuracies:
        kind, title = _DATASETS.get(result["dataset"], (result["dataset"], result["dataset"]))
        for metric, name, key, digits in (
            ("accuracy", "Top-1 accuracy (%)", "top1", 4),
            ("accuracy", "Top-5 accuracy (%)", "top5", 4),
            ("spikes", "Spikes per image", "spikes_per_image", None),
        ):
            if result[key] is not None:
                value = round(result[key], digits)
                split, task = result["split"], "Image Classification"
                entries.append(
                    EvalResult(_TASK, kind, title, metric, value, task, dataset_split=split, metric_name=name)
                )
    dataset = _DATASETS.get(release.dataset)
    onnx = ["onnx"] if any(name.endswith(".onnx") for name in release.files) else []
    return ModelCardData(
        license=license,
        library_name="snn-zoo",
        pipeline_tag=_TASK,
        tags=[_TASK, "spiking-neural-network", "snn-zoo", "timm", *onnx],
        datasets=[dataset[0]] if dataset else None,
        metrics=["accuracy"] if entries else None,
        model_name=release.name if entries else None,
        eval_results=entries or None,
    )


def _summary(release: Release) -> str:
    config = release.config
    what = (timm.models.model_entrypoint(config["architecture"]).__doc__ or "").strip()
    dataset = release.dataset or "an unknown data set"
    lines = [
        f"A spiking neural network for images of {'x'.join(map(str, config['pretrained_cfg']['input_size']))} values "
        f"in {config['num_classes']} classes, trained on {_DATASETS.get(dataset, ('', _text(dataset)))[1]} with "
        f"{config['model_args'].get('timesteps', 'its default number of')} time steps. {what}"
    ]
    tests = (result for result in release.accuracies if (result["split"], result["dataset"]) == ("test", dataset))
    if test := next(tests, None):
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
    load = "\n".join(f"zoo.load_plugin({plugin['file']!r})" for plugin in release.config["plugins"])
    return f"""It was made with code of its author's that is not in this repository. With the file at hand, run first:

```python
{load}  # on the command line, --plugin
```
"""


def _training(release: Release) -> str:
    source = next((r for r in release.results if r["kind"] == "accuracy" and r["train_seconds"]), {})
    rows = {
        "command": f"`{source['command']}`" if source.get("command") else None,
        "seed": release.recipe.get("seed"),
        "started from": _started_from(release),
        "epochs": release.recipe.get("epochs"),
        "commit": source.get("commit"),
        "data": f"{release.dataset}, sha256 {source['data_sha256']}" if source.get("data_sha256") else None,
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
    results = release.accuracies
    if not results:
        return "## Results\n\nNo accuracy was published with these weights.\n"
    # Not every result counts every cost.
    known = [column for column in _METRICS if any(result.get(column[0]) is not None for result in results)]
    rows = []
    for result in results:
        dataset = _DATASETS.get(result["dataset"], ("", result["dataset"]))[1]
        numbers = (_number(result.get(key), digits) for key, _, digits in known)
        rows.append([dataset, result["split"], result["images"], *numbers])
    return f"## Results\n\n{_table(['data set', 'split', 'images', *(title for _, title, _ in known)], rows)}"


def _latency(release: Release) -> str:
    rows = [
        [*form, row["batch"], row["threads"], _number(row["p50_ms"], 2), _number(row["p95_ms"], 2), *where]
        for result in release.results
        if result["kind"] == "onnx"
        for form, where in [((result["precision"], result["layout"]), (result["provider"], _machine(result)))]
        for row in result["latency"]
    ]
    head = ["precision", "layout", "batch", "threads", "p50 (ms)", "p95 (ms)", "provider", "machine"]
    return f"## Latency in ONNX Runtime\n\n{_table(head, rows)}" if rows else ""


def _citation(release: Release) -> str:
    text = "## Citation\n\nCite snn-zoo, and the paper of the architecture, which its file in zoo/models names."
    config = release.config
    scaled = "unregistered" in config or resolve_scaling(config["model_args"].get("scaling")) is not None
    if scaled:
        text += " The training used gradient scaling by local spike information (arXiv:2308.00558); the rule is "
        text += "snn-zoo's reading of it."
    return f"{text}\n\n```bibtex\n{_SNN_ZOO}{_GRADIENT_SCALING if scaled else ''}```\n"


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return str(machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores")


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    return "".join(f"| {' | '.join(map(_text, line))} |\n" for line in [head, ["---"] * len(head), *rows])


def _text(value: Any) -> str:
    """Returns a value that may come from anybody as text of a table: on one line, no HTML, no end of its cell."""
    line = " ".join(shown("" if value is None else value, 2000).split())
    return line.replace("<", "&lt;").replace("|", "\\|")
