"""The recipe: a flat YAML file, one key a training option; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zoo.data import SIZE
from zoo.errors import CommandParser, ZooError, one_of
from zoo.files import parse_yaml, read_yaml
from zoo.kernels import list_kernels
from zoo.provenance import without_folders
from zoo.specs import check_number

from .augment import AUTO_AUGMENTS

SCHEDULES: dict[str, dict[str, Any]] = {"cosine": {"sched": "cosine"}, "linear": {"sched": "poly", "decay_rate": 1.0}}
"""In timm's words."""
WEIGHT_TYPES = {"fp32": torch.float32, "fp16": torch.float16}
PLACE = {"resume", "checkpoint_minutes", "tensorboard", "data_dir", "download", "out", "plugin"}
"""Keys that say where and how a run happens, not what it computes: free to change on --resume, not in checkpoints."""
_HERE = Path(__file__).resolve().parent
Spec = str | dict[str, Any] | None


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


class Phase(NamedTuple):
    """What an epoch trains with."""

    size: int
    """Of its images, in pixels."""
    timesteps: int
    alpha: float | None
    """Strength of gradient scaling, None for that of the rule."""


@dataclass
class Recipe:
    """Everything that decides a training run; a run directory keeps it as recipe.yaml."""

    model: str = _key("sresnet19_gs", "architecture; python -c 'import zoo; print(zoo.list_models())' lists them")
    tag: str | None = _key(None, "name of this training; t<timesteps>_<dataset> unless said")
    dataset: str = _key("cifar10", "cifar10, cifar100 or digits (embedded, needs no files)")
    data_dir: str | None = _key(None, "folder with torchvision's CIFAR files; SNNZOO_DATA unless said")
    download: bool = _key(False, "fetch missing CIFAR files into data_dir")
    train_images: int = _key(0, "train on this many images, 0 for all")
    val_images: int = _key(0, "hold out this many training images and validate on them every epoch")
    test: bool = _key(True, "read the test set, once, after the last epoch")

    timesteps: int = _key(4, "time steps T")
    neuron: Spec = _key(
        "model", "'model' (as the architecture says), name or {name: lif, decay: 0.5, reset: hard, ...}"
    )
    surrogate: Spec = _key("model", "'model', name or {name: triangle, width: 1.0}")
    scaling: Spec = _key(
        "model", "gradient scaling: 'model' (as the architecture says), none, or {name: ..., alpha: ...}"
    )
    model_args: dict[str, Any] | None = _key(None, "further keywords of the architecture, {stem_stride: 2, ...}")
    plugin: str | None = _key(None, "Python file to run first, which registers scaling rules or models of yours")
    init: str | None = _key(
        None, "start from these weights: a pretrained model's name, a checkpoint directory or hf-hub:ORG/NAME"
    )
    dropout: float = _key(0.0, "probability of dropping a pooled feature before the head")

    epochs: int = _key(100, "passes over the training images")
    phases: list[dict[str, Any]] | None = _key(
        None,
        "what comes before the full setting: a list of {epochs: E, size: pixels, timesteps: T, alpha: strength of "
        "gradient scaling}, in order, each but epochs as in the full setting unless said; the last epochs are that",
    )
    batch_size: int = _key(128, "images a step, over all processes")
    optimizer: str = _key("sgd", "sgd (Nesterov momentum), adamw, or muon (AdamW on biases and normalisation)")
    lr: float = _key(0.1, "peak learning rate for this batch size")
    momentum: float = _key(0.9, "of sgd and muon")
    weight_decay: float = _key(5e-4, "on weights; not on biases and normalisation")
    warmup_epochs: float = _key(1.0, "linear warm-up, then what `schedule` says, to min_lr")
    schedule: str = _key("cosine", "how the learning rate falls: cosine or linear")
    min_lr: float = _key(0.0, "learning rate at the end")
    clip_grad: float = _key(0.0, "largest gradient norm, 0 for no clipping")
    loss: str = _key("ce", "ce (cross-entropy of the mean logits) or tet (of every time step)")
    tet_lambda: float = _key(0.05, "weight of TET's regularisation towards logits of 1")
    label_smoothing: float = _key(0.0, "0 to 1")
    ema: float = _key(0.0, "decay of the weights' exponential moving average, which is then what is kept; 0 for none")

    crop: int = _key(4, "random crop after padding by this many pixels, 0 for none")
    hflip: bool = _key(True, "random mirror image")
    auto_augment: str = _key("none", "none, autoaugment (CIFAR-10 policy) or randaugment")
    randaugment_ops: int = _key(1, "operations an image")
    randaugment_magnitude: int = _key(9, "0 to 30")
    cutout: int = _key(0, "side of a zeroed square in pixels, 0 for none")
    erasing: float = _key(0.0, "probability of erasing a random rectangle")
    mixup: float = _key(0.0, "alpha of mixup, 0 for none")
    cutmix: float = _key(0.0, "alpha of cutmix, 0 for none")
    mix_prob: float = _key(1.0, "probability of mixing a batch")

    weights: str = _key(
        "fp32", "what the checkpoint stores and the result is measured with: fp32, or fp16, half as large"
    )
    amp: str = _key("auto", "off, bf16, fp16, or auto: bf16 where the processor computes in it, else off")
    channels_last: bool = _key(True, "memory layout")
    kernel: str = _key("auto", "which code runs the neurons: auto, fused or reference; see zoo/kernels")
    grad_checkpointing: bool = _key(False, "keep the spikes between stages only and compute the rest twice")
    device: str = _key("auto", "auto (cuda where there is one), cpu, cuda")
    seed: int = _key(0, "of initialisation, data order, augmentation and dropout")

    out: str | None = _key(None, "run directory; runs/<model>.<tag>-seed<seed> unless said")
    resume: bool = _key(False, "go on where the run directory's last state ends, bit for bit")
    checkpoint_minutes: float = _key(5.0, "save the training state this often, and at every epoch's end")
    tensorboard: bool = _key(False, "also write TensorBoard events (needs the extra snn-zoo[tensorboard])")
    comparison: str | None = _key(None, "name of the comparison that this run is part of; <model>.<tag> unless said")
    test_reads: int = _key(1, "how many runs of that comparison read the test set")

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            setattr(self, key.name, _checked(key.name, str(key.type), getattr(self, key.name)))
        for name, low in _AT_LEAST.items():
            if getattr(self, name) < low:
                raise ZooError(f"recipe key {name} must be {low} or more, not {getattr(self, name)}")
        for name in ("label_smoothing", "ema", "erasing", "mix_prob", "tet_lambda"):
            if getattr(self, name) > 1:
                raise ZooError(f"recipe key {name} must lie in [0, 1], not {getattr(self, name)}")
        if self.randaugment_magnitude > 30:
            raise ZooError(f"recipe key randaugment_magnitude must lie in [0, 30], not {self.randaugment_magnitude}")
        for name, known in _ONE_OF.items():
            if getattr(self, name) not in known:
                raise one_of(f"value of recipe key {name}", getattr(self, name), known)
        if self.tag is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", self.tag):
            raise ZooError(f"recipe key tag may hold letters, digits, '_', '-' and '.', not {self.tag!r}")
        if self.optimizer == "sgd" and self.momentum == 0:
            raise ZooError("recipe key momentum must be above 0 for sgd, which is Nesterov's here")
        for phase in self.phases or []:
            _check_phase(phase)
        if sum(phase["epochs"] for phase in self.phases or []) >= self.epochs:
            raise ZooError(
                f"recipe key phases must leave some of the {self.epochs} epochs to the full setting: shorten them, or "
                "train without them (--phases null)"
            )
        self.tag = self.tag or f"t{self.timesteps}_{self.dataset}"
        self.out = self.out or f"runs/{self.model}.{self.tag}-seed{self.seed}"
        self.comparison = self.comparison or f"{self.model}.{self.tag}"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values, keys in the order of this file."""
        return dataclasses.asdict(self)

    def phase(self, epoch: int) -> Phase:
        """The setting of an epoch (counted from 0); see `phases`."""
        for phase in self.phases or []:
            if epoch < phase["epochs"]:
                return Phase(phase.get("size", SIZE), phase.get("timesteps", self.timesteps), phase.get("alpha"))
            epoch -= phase["epochs"]
        return Phase(SIZE, self.timesteps, None)

    @property
    def settings(self) -> dict[str, Any]:
        """The part of it that says what a run computes, not where and how it happens."""
        values = {key: value for key, value in self.to_dict().items() if key not in PLACE}
        for key in ("init", "plugin"):  # a plugin may move, but without its file nobody could repeat the run
            if path := getattr(self, key):
                values[key] = without_folders(path)
        return values


DEFAULTS = {key.name: key.default for key in dataclasses.fields(Recipe)}
"""What a key was in a recipe that is older than the key."""
_AT_LEAST = dict.fromkeys(("timesteps", "epochs", "batch_size", "test_reads"), 1) | dict.fromkeys(
    (
        *(
            "train_images",
            "val_images",
            "seed",
            "lr",
            "momentum",
            "weight_decay",
            "warmup_epochs",
            "min_lr",
            "clip_grad",
        ),
        *(
            "tet_lambda",
            "label_smoothing",
            "ema",
            "crop",
            "cutout",
            "erasing",
            "mixup",
            "cutmix",
            "mix_prob",
            "dropout",
        ),
        *("randaugment_ops", "randaugment_magnitude", "checkpoint_minutes"),
    ),
    0,
)
_ONE_OF = {
    "optimizer": ["sgd", "adamw", "muon"],
    "schedule": list(SCHEDULES),
    "loss": ["ce", "tet"],
    "auto_augment": AUTO_AUGMENTS,
    "weights": list(WEIGHT_TYPES),
    "amp": ["auto", "off", "bf16", "fp16"],
    "kernel": list_kernels(),
    "device": ["auto", "cpu", "cuda"],
}


def _check_phase(phase: Any) -> None:
    if not isinstance(phase, dict):
        raise ZooError(
            f"recipe key phases takes objects {{epochs: E, size: pixels, timesteps: T, alpha: A}}, not {phase!r}"
        )
    for key in ("epochs", *phase):
        if key == "alpha":
            check_number("alpha of a phase", phase[key], 0, 1)
            continue
        if key not in _PHASE:
            raise one_of("key of a phase", key, [*_PHASE, "alpha"])
        low, high = _PHASE[key]
        value = phase.get(key)
        if type(value) is not int or not low <= value <= high:
            raise ZooError(f"{key} of a phase must be a whole number from {low} to {high}, not {value!r}")


_PHASE = {"epochs": (1, 100_000), "size": (8, SIZE), "timesteps": (1, 1024)}  # key: smallest and largest value
_MEANING = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a name"},
    "dict": "an object {keyword: value, ...}",
    "list": "a list [{keyword: value, ...}, ...]",
}


def _checked(name: str, kind: str, value: Any) -> Any:
    if kind == "Spec" or (kind.endswith("| None") and value is None):
        return value
    wanted = kind.removesuffix(" | None").split("[")[0]
    if wanted == "float" and isinstance(value, str):  # YAML 1.1 reads 5e-4 as text
        try:
            value = float(value)
        except ValueError:
            raise ZooError(f"recipe key {name} takes a number, not {value!r}") from None
    if wanted == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted == "str" and isinstance(value, bool):  # ... and off as false
        value = "on" if value else "off"
    if type(value).__name__ != wanted or (wanted == "float" and not math.isfinite(value)):
        meaning = _MEANING[wanted]
        raise ZooError(f"recipe key {name} takes {meaning}, not {value!r}")
    return value


def load_recipe(path: str | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, or one of the package by its name without `.yaml`, and override some of its keys.

    Raises:
        ZooError: no such recipe, not a flat mapping, an unknown key, or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        file = next((f for f in (Path(path), _HERE / path, _HERE / f"{path}.yaml") if f.is_file()), None)
        if file is None:
            raise one_of("recipe", path, sorted(f.stem for f in _HERE.glob("*.yaml")))
        values = read_yaml(file) or {}
        if not isinstance(values, dict):
            raise ZooError(f"{file} is not a recipe: expected lines of `key: value`")
    check_keys(values)
    return Recipe(**{**values, **(overrides or {})})


def check_keys(values: dict[str, Any]) -> None:
    """Raise ZooError for a key that is none of a recipe's."""
    known = [f.name for f in dataclasses.fields(Recipe)]
    for key in values:
        if key not in known:
            raise one_of("recipe key", key, known)


def parse_command_line(argv: list[str] | None) -> Recipe:
    """`RECIPE.yaml [--key value ...]` to a Recipe; --help lists every key."""
    parser = CommandParser(
        prog="python -m recipes.train",
        description="Train a spiking network from a recipe: a flat YAML file, every key of which can be overridden.",
        epilog="example: python -m recipes.train sresnet19_w16_gs.t2_cifar10 --epochs 3 --data-dir DATA_ROOT",
    )
    parser.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    for key in dataclasses.fields(Recipe):
        text = key.metadata["help"] + ("" if key.default is None else f" (default: {key.default})")
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if key.type == "bool" else {}
        flags = {f"--{key.name.replace('_', '-')}", f"--{key.name}"}
        parser.add_argument(*flags, dest=key.name, metavar="X", help=text.replace("%", "%%"), **options)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    return load_recipe(
        given.pop("recipe"),
        {key: parse_yaml(value, f"the value of --{key}, {value!r},") for key, value in given.items()},
    )
