"""The recipe: a flat YAML file, one key per training option; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zoo.checkpoint import TAG, check_keywords
from zoo.data import SIZE, dataset_name
from zoo.data.dataset import check_size
from zoo.data.folder import PREFIX
from zoo.errors import CommandParser, ZooError, one_of, quoted
from zoo.files import parse_yaml, read_yaml, user_path
from zoo.kernels import list_kernels
from zoo.provenance import without_folders
from zoo.specs import MOST_TIMESTEPS, check_number

from .augment import AUTO_AUGMENTS
from .state import has_state

SCHEDULES: dict[str, dict[str, Any]] = {"cosine": {"sched": "cosine"}, "linear": {"sched": "poly", "decay_rate": 1.0}}
"""In timm's words."""
WEIGHT_TYPES = {"fp32": torch.float32, "fp16": torch.float16}
RECIPE = "recipe.yaml"
"""The file of a run directory that says what was asked for."""
_HERE = Path(__file__).resolve().parent
Spec = str | dict[str, Any] | None
Files = str | list[str] | None


MOST_EPOCHS = 100_000
# Unless a key says its own: beyond any run, and little enough to count to or to compute with.
_MOST = 10**9
_LONGEST_TEXT, _LONGEST_LIST = 1000, 100


def _key(
    default: Any, text: str, low: int = 0, high: float = _MOST, choices: list[str] | None = None, place: bool = False
) -> Any:
    """All there is to say of a recipe key.

    Args:
        text: its help.
        low, high: the smallest and the largest number.
        choices: the values that it may have, None for any.
        place: it says where and how a run happens, not what it computes.
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, "choices": choices, "place": place})


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
    tag: str | None = _key(None, "name of this training; t<timesteps>_<dataset> by default")
    dataset: str = _key(
        "cifar10",
        "cifar10, cifar100, digits (embedded, needs no files), folder:DIR with DIR/train/CLASS/* and val/ or test/, or "
        "one that a plugin registers",
    )
    img_size: int | None = _key(
        None, "pixels a side that images are brought to; by default those of the data set, 32 of a folder"
    )
    data_dir: str | None = _key(None, "folder with torchvision's CIFAR files; SNNZOO_DATA by default", place=True)
    download: bool = _key(False, "fetch missing CIFAR files into data_dir", place=True)
    train_images: int = _key(0, "train on this many images, 0 for all")
    val_images: int = _key(0, "hold out this many training images and validate on them every epoch")
    test: bool = _key(True, "read the test set, once, after the last epoch")

    timesteps: int = _key(4, "time steps T", low=1, high=MOST_TIMESTEPS)
    neuron: Spec = _key(
        "model", "'model' (as the architecture says), name or {name: lif, decay: 0.5, reset: hard, ...}"
    )
    surrogate: Spec = _key("model", "'model', name or {name: triangle, width: 1.0}")
    scaling: Spec = _key("model", "gradient scaling: 'model' (as the network says), none, or {name: ..., alpha: ...}")
    model_args: dict[str, Any] | None = _key(None, "further keywords of the architecture, {stem_stride: 2, ...}")
    plugin: Files = _key(
        None, "Python file to run first: it registers networks, neurons, rules ... of yours (repeatable)", place=True
    )
    init: str | None = _key(
        None,
        "start from these weights: a pretrained model's name, a checkpoint directory or hf-hub:ORG/NAME; where the "
        "recipe is silent (model_args, neuron, surrogate), the network is built as that one was",
    )
    freeze: int = _key(
        0,
        "keep the stem and this many stages as `init` has them, their normalisation's statistics too; 0 for none",
        high=100,
    )
    dropout: float = _key(0.0, "probability of dropping a pooled feature before the head", high=0.99)

    epochs: int = _key(100, "passes over the training images", low=1, high=MOST_EPOCHS)
    phases: list[dict[str, Any]] | None = _key(
        None,
        "what comes before the full setting: a list of {epochs: E, size: pixels, timesteps: T, alpha: strength of "
        "gradient scaling}, in order, each but epochs as in the full setting by default; the last epochs are that",
    )
    batch_size: int = _key(128, "images per step, over all processes", low=1, high=1_000_000)
    optimizer: str = _key(
        "sgd",
        "sgd (Nesterov momentum), adamw, or muon (timm's: AdamW on biases, depth-wise convolutions and what is no "
        "matrix of 4 x 4 or more, or over 128 times as long as wide)",
        choices=["sgd", "adamw", "muon"],
    )
    lr: float = _key(0.1, "peak learning rate for this batch size", high=1e6)
    layer_decay: float = _key(
        1.0, "each block learns this many times as fast as the one behind it, the head at lr; 1 for all alike", high=1
    )
    momentum: float = _key(0.9, "of sgd and muon", high=1)
    weight_decay: float = _key(5e-4, "on weights; not on biases and normalisation", high=1e6)
    warmup_epochs: float = _key(
        1.0,
        "linear warm-up to lr; then where `schedule`, which counts from the first step, is by then",
        high=MOST_EPOCHS,
    )
    schedule: str = _key("cosine", "how the learning rate falls: cosine or linear", choices=list(SCHEDULES))
    min_lr: float = _key(0.0, "learning rate at the end", high=1e6)
    clip_grad: float = _key(0.0, "largest gradient norm, 0 for no clipping")
    loss: str = _key("ce", "ce (cross-entropy of the mean logits) or tet (of every time step)", choices=["ce", "tet"])
    tet_lambda: float = _key(0.05, "weight of TET's regularisation towards logits of 1", high=1)
    label_smoothing: float = _key(0.0, "0 to 1", high=1)
    ema: float = _key(
        0.0,
        "decay of the weights' exponential moving average, which is then what is kept, at step n 1 - n^(-2/3) at most; "
        "0 for none",
        high=1,
    )

    crop: int = _key(4, "random crop after padding by this many pixels, 0 for none", high=256)
    hflip: bool = _key(True, "random mirror image")
    auto_augment: str = _key("none", "none, autoaugment (CIFAR-10 policy) or randaugment", choices=AUTO_AUGMENTS)
    randaugment_ops: int = _key(1, "operations per image", high=16)
    randaugment_magnitude: int = _key(9, "0 to 30", high=30)
    cutout: int = _key(0, "side of a zeroed square in pixels, 0 for none", high=4096)
    erasing: float = _key(0.0, "probability of erasing a random rectangle", high=1)
    mixup: float = _key(0.0, "alpha of mixup, 0 for none", high=1000)
    cutmix: float = _key(0.0, "alpha of cutmix, 0 for none", high=1000)
    mix_prob: float = _key(1.0, "probability of mixing a batch", high=1)

    weights: str = _key(
        "fp32",
        "what the checkpoint stores and the result is measured with: fp32, or fp16, half as large",
        choices=list(WEIGHT_TYPES),
    )
    amp: str = _key(
        "auto",
        "off, bf16, fp16, or auto: bf16 where the processor computes in it, else off",
        choices=["auto", "off", "bf16", "fp16"],
    )
    channels_last: bool = _key(True, "memory layout")
    kernel: str = _key(
        "auto", "which code runs the neurons: auto, fused or reference; see zoo/kernels", choices=list_kernels()
    )
    grad_checkpointing: bool = _key(False, "keep the spikes between stages only and compute the rest twice")
    device: str = _key("auto", "auto (cuda where there is one), cpu, cuda", choices=["auto", "cpu", "cuda"])
    seed: int = _key(0, "of initialisation, data order, augmentation and dropout", high=10**18)

    out: str | None = _key(None, "run directory; runs/<model>.<tag>-seed<seed> by default", place=True)
    resume: bool = _key(False, "go on where the run directory's last state ends, bit-exactly", place=True)
    checkpoint_minutes: float = _key(
        5.0, "save the training state this often, and at every epoch's end", high=1e6, place=True
    )
    tensorboard: bool = _key(False, "also write TensorBoard events (needs the extra tensorboard)", place=True)
    comparison: str | None = _key(None, "name of the comparison that this run is part of; <model>.<tag> by default")
    test_reads: int = _key(1, "how many runs of that comparison read the test set", low=1)

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            setattr(self, key.name, _checked(key, getattr(self, key.name)))
        if self.tag is not None and not re.fullmatch(TAG, self.tag):
            form = "letters, digits, '_', '-' and, but for the first, '.', at most 100"
            raise ZooError(f"recipe key tag may hold {form}, not {quoted(self.tag)}")
        if "." in self.model:
            init = f"--init {self.model} starts from its weights"
            raise ZooError(f"recipe key model takes an architecture, not the checkpoint {quoted(self.model)}: {init}")
        if self.optimizer == "sgd" and self.momentum == 0:
            raise ZooError("recipe key momentum must be above 0 for sgd, which is Nesterov's here")
        if self.min_lr > self.lr:
            raise ZooError(
                f"recipe key min_lr must not be above lr, {self.lr:g}, but is {self.min_lr:g}: lower it, too"
            )
        check_keywords(self.model_args or {}, "recipe key model_args")
        for word in self.model_args or {}:
            if word in _SAID_ELSEWHERE:
                where = "the data set" if word == "num_classes" else f"recipe key {word}"
                raise ZooError(f"recipe key model_args cannot hold {word!r}: {where} says it")
        if self.freeze and not self.init:
            raise ZooError("recipe key freeze keeps what init has learnt: give init, or freeze 0")
        if self.img_size is not None:
            check_size(self.img_size)
        for phase in self.phases or []:
            _check_phase(phase, self.img_size or SIZE)
        if sum(phase["epochs"] for phase in self.phases or []) >= self.epochs:
            left = f"recipe key phases must leave some of the {self.epochs} epochs to the full setting"
            raise ZooError(f"{left}: shorten them, or train without them (--phases null)")
        self.tag = self.tag or f"t{self.timesteps}_{dataset_name(self.dataset)}"
        self.out = str(user_path(self.out or f"runs/{self.model}.{self.tag}-seed{self.seed}"))
        self.comparison = self.comparison or f"{self.model}.{self.tag}"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values, keys in the order of this file."""
        return dataclasses.asdict(self)

    @property
    def plugins(self) -> list[str]:
        """The files that `plugin` names."""
        return [self.plugin] if isinstance(self.plugin, str) else self.plugin or []

    def phase(self, epoch: int) -> Phase:
        """The setting of an epoch (counted from 0); see `phases`."""
        size = self.img_size or SIZE
        for phase in self.phases or []:
            if epoch < phase["epochs"]:
                return Phase(phase.get("size", size), phase.get("timesteps", self.timesteps), phase.get("alpha"))
            epoch -= phase["epochs"]
        return Phase(size, self.timesteps, None)

    @property
    def settings(self) -> dict[str, Any]:
        """The part of it that says what a run computes, not where and how it happens."""
        values = {key: value for key, value in self.to_dict().items() if key not in PLACE}
        if self.init:
            values["init"] = without_folders(self.init)
        if self.dataset.startswith(PREFIX):  # by the name of the folder, wherever it lies
            values["dataset"] = PREFIX + Path(os.path.abspath(self.dataset.removeprefix(PREFIX))).name
        if self.plugin:  # it may move, but without its file nobody could repeat the run
            files = [without_folders(file) for file in self.plugins]
            values["plugin"] = files[0] if isinstance(self.plugin, str) else files
        return values


_SAID_ELSEWHERE = ("num_classes", "timesteps", "neuron", "surrogate", "scaling", "dropout", "kernel")
DEFAULTS = {key.name: key.default for key in dataclasses.fields(Recipe)}
"""What a key was in a recipe that is older than the key."""
PLACE = {key.name for key in dataclasses.fields(Recipe) if key.metadata["place"]}
"""Keys that say where and how a run happens, not what it computes: free to change on --resume, not in checkpoints."""
CHANGEABLE = {"weights", "test_reads", "grad_checkpointing"}
"""Keys that play no part in what steps compute: free to change on --resume, but in checkpoints."""


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_phase(phase: Any, full_size: int) -> None:
    if not isinstance(phase, dict):
        form = "{epochs: E, size: pixels, timesteps: T, alpha: A}"
        raise ZooError(f"recipe key phases takes objects {form}, not {quoted(phase)}")
    for key in ("epochs", *phase):
        if key not in _PHASE:
            raise one_of("key of a phase", key, list(_PHASE))
        (low, high), value = _PHASE[key], phase.get(key)
        high = full_size if key == "size" else high
        if key == "alpha":
            check_number("alpha of a phase", value, low, high)
        elif type(value) is not int or not low <= value <= high:
            whose = "; of larger images, img_size says their size" if key == "size" else ""
            raise ZooError(f"{key} of a phase must be a whole number from {low} to {high}, not {quoted(value)}{whose}")


# From key to smallest and largest value.
_PHASE = {"epochs": (1, MOST_EPOCHS), "size": (8, math.inf), "timesteps": (1, MOST_TIMESTEPS), "alpha": (0, 1)}
_MEANING = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a name",
    "dict": "an object {keyword: value, ...}",
    "list": "a list [{keyword: value, ...}, ...]",
}


def _checked(key: dataclasses.Field[Any], value: Any) -> Any:
    """The value of a key, of its type and in its range."""
    name, kind, limits = key.name, str(key.type), key.metadata
    if kind == "Spec" or (kind.endswith("| None") and value is None):
        return value
    if kind == "Files":
        if value is None or isinstance(value, str) or _are_texts(value):
            return value
        raise ZooError(f"recipe key {name} takes a file or a list of files, not {value!r}")
    wanted = kind.removesuffix(" | None").split("[")[0]
    if wanted == "float" and isinstance(value, str):  # YAML 1.1 reads 5e-4 as text
        try:
            value = float(value)
        except ValueError:
            raise ZooError(f"recipe key {name} takes a number, not {quoted(value)}") from None
    if wanted == "float" and type(value) is int and abs(value) <= _MOST:  # a larger one is out of range, or of float's
        value = float(value)
    if wanted == "str" and isinstance(value, bool) and limits["choices"]:  # ... and off as false
        value = "on" if value else "off"
    if type(value).__name__ != wanted or (wanted == "float" and not math.isfinite(value)):
        raise ZooError(f"recipe key {name} takes {_MEANING[wanted]}, not {quoted(value)}")
    if wanted == "str" and not (len(value) <= _LONGEST_TEXT and value.isprintable()):
        raise ZooError(
            f"recipe key {name} takes printable text of at most {_LONGEST_TEXT} characters, not {quoted(value)}"
        )
    if wanted in ("dict", "list") and len(value) > _LONGEST_LIST:
        raise ZooError(f"recipe key {name} takes at most {_LONGEST_LIST} entries, not {len(value):,}")
    if limits["choices"] and value not in limits["choices"]:
        raise one_of(f"value of recipe key {name}", value, limits["choices"])
    if wanted in ("int", "float"):
        if value < limits["low"]:
            raise ZooError(f"recipe key {name} must be {limits['low']} or more, not {quoted(value)}")
        if value > limits["high"]:
            raise ZooError(f"recipe key {name} must lie in [{limits['low']}, {limits['high']}], not {quoted(value)}")
    return value


def list_recipes() -> list[str]:
    """The names of the package's recipes."""
    return sorted(file.stem for file in _HERE.glob("*.yaml"))


def load_recipe(path: str | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, or one of the package by its name without `.yaml`, and override some of its keys.

    Raises:
        ZooError: no such recipe, not a flat mapping, an unknown key, or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        file = next((f for f in (user_path(path), _HERE / path, _HERE / f"{path}.yaml") if f.is_file()), None)
        if file is None:
            raise one_of("recipe", path, list_recipes())
        values = read_yaml(file) or {}
        if not isinstance(values, dict):
            raise ZooError(f"{file} is not a recipe: expected lines of `key: value`")
        if file.name == RECIPE and has_state(file.parent):
            values["out"] = str(file.parent)  # of a run, which may have moved
    check_keys(values)
    return Recipe(**{**values, **(overrides or {})})


def check_keys(values: dict[str, Any]) -> None:
    """Raise ZooError for a key that is none of a recipe's."""
    for key in values:
        if key not in DEFAULTS:
            raise one_of("recipe key", key, list(DEFAULTS))


def _value(key: str, text: str, kind: Any) -> Any:
    if kind == "str | None" and text in ("null", ""):
        return None
    # Names and places are taken as they are, "folder:a b #1".
    return text if kind in ("str", "str | None") else parse_yaml(text, f"the value of --{key}, {text!r},")


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
        if key.type in ("int", "float"):
            text += f" [{key.metadata['low']} to {key.metadata['high']:g}]"
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if key.type == "bool" else {}
        if key.name == "plugin":
            options = {"action": "append"}
        flags = dict.fromkeys((f"--{key.name.replace('_', '-')}", f"--{key.name}"))
        parser.add_argument(*flags, dest=key.name, metavar="X", help=text.replace("%", "%%"), **options)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    path, plugin = given.pop("recipe"), given.pop("plugin", None)
    types = {key.name: key.type for key in dataclasses.fields(Recipe)}
    said = {k: _value(k, v, types[k]) for k, v in given.items()}
    if plugin:  # names of files, as every other command takes them
        said["plugin"] = plugin if len(plugin) > 1 else plugin[0]
    return load_recipe(path, said)
