"""The recipe of a training: a flat YAML file whose keys are the fields of a typed model, and its command line."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from zoo.errors import CommandParser, ZooError, one_of, quoted
from zoo.files import parse_yaml, read_yaml, user_path
from zoo.names import BUILTIN, PREFIX, SIZE, TAG, Slices, check_size, dataset_name, split_folder
from zoo.schema import Count, Model, Share, Text, sentence
from zoo.specs import MOST_TIMESTEPS

RECIPE = "recipe.yaml"
"""The file of a run directory that says what was asked for."""
RESULT = "result.json"
STATE = "state.safetensors"
"""The last state of a run directory."""
PLACE = {"data_dir", "download", "plugin", "out", "resume", "checkpoint_minutes", "tensorboard"}
"""Keys that say where and how a run happens, not what it computes: free to change on --resume, not in checkpoints."""
CHANGEABLE = {"weights", "test_reads", "grad_checkpointing"}
"""Keys that play no part in what steps compute: free to change on --resume, but in checkpoints."""
_SAID_ELSEWHERE = ("num_classes", "timesteps", "neuron", "surrogate", "scaling", "dropout", "kernel")
_HERE = Path(__file__).resolve().parent
_MOST_EPOCHS = 100_000
_MOST = 10**9
_SMALLEST_ALPHA = 1e-3


def _mixing(alpha: float) -> float:
    if 0 < alpha < _SMALLEST_ALPHA:  # the beta distribution of a smaller one is 0 or 1, or no number
        raise ValueError(f"takes 0, or a number from {_SMALLEST_ALPHA:g}, not {alpha:g}")
    return alpha


Alpha = Annotated[float, Field(ge=0, le=1000), AfterValidator(_mixing)]
Rate = Annotated[float, Field(ge=0, le=1e6)]
Spec = str | dict[str, Any] | None


class Phase(NamedTuple):
    """What an epoch trains with: pixels a side, time steps, and the strength of gradient scaling (None: the rule's)."""

    size: int
    timesteps: int
    alpha: float | None


class PhaseKeys(TypedDict):
    """What a recipe says of a phase: its epochs, and what is another than in the full setting."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[misc]
    epochs: Annotated[int, Field(ge=1, le=_MOST_EPOCHS)]
    size: NotRequired[Annotated[int, Field(ge=8)]]
    timesteps: NotRequired[Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)]]
    alpha: NotRequired[Annotated[int | float, Field(ge=0, le=1)]]


class Recipe(Model):
    """Everything that decides a training run; a run directory keeps it as recipe.yaml.

    Raises:
        ZooError: an unknown key, a value of the wrong type or range, or keys that contradict each other.
    """

    model_config = ConfigDict(protected_namespaces=())

    model: Text = "sresnet19_gs"
    """architecture; snn-zoo list has them"""
    tag: Text | None = None
    """name of this training; t<timesteps>_<dataset> by default"""
    dataset: Text = "cifar10"
    """cifar10, cifar100, digits (embedded, needs no files), folder:DIR with DIR/CLASS/*, or DIR/train/CLASS/* and
    val/ or test/, one that a plugin registers; of event cameras cifar10dvs:DIR, dvsgesture:DIR, nmnist:DIR, events:DIR,
    i2e:DATASET"""
    img_size: int | None = None
    """pixels a side that images are brought to; by default those of the data set, 32 of a folder"""
    slices: Slices = "number"
    """how recordings of event cameras are cut into time steps: number (as many events in each) or time (as long)"""
    data_dir: Text | None = None
    """folder with torchvision's CIFAR files; SNNZOO_DATA by default"""
    download: bool = False
    """fetch missing CIFAR files into data_dir"""
    train_images: Count = 0
    """train on this many images, 0 for all"""
    val_images: Count = 0
    """hold out this many training images and validate on them every epoch"""
    test: bool = True
    """read the test set, once, after the last epoch"""

    timesteps: int = Field(4, ge=1, le=MOST_TIMESTEPS)
    """time steps T"""
    neuron: Spec = "model"
    """'model' (as the architecture says), name or {name: lif, decay: 0.5, reset: hard, ...}"""
    surrogate: Spec = "model"
    """'model', name or {name: triangle, width: 1.0}"""
    scaling: Spec = "model"
    """gradient scaling: 'model' (as the network says), none, or {name: ..., alpha: ...}"""
    model_args: dict[str, Any] | None = None
    """further keywords of the architecture, {stem_stride: 2, ...}"""
    plugin: str | list[str] | None = None
    """Python file to run first: it registers networks, neurons, rules ... of yours (repeatable)"""
    init: Text | None = None
    """start from these weights: a pretrained model's name, a checkpoint directory or hf-hub:ORG/NAME; where the recipe
    is silent (model_args, neuron, surrogate), the network is built as that one was; a ResNet may start from
    a narrower one"""
    freeze: int = Field(0, ge=0, le=100)
    """keep the stem and this many stages as `init` has them, their normalisation's statistics too; 0 for none"""
    dropout: float = Field(0.0, ge=0, le=0.99)
    """probability of dropping a pooled feature before the head"""

    epochs: int = Field(100, ge=1, le=_MOST_EPOCHS)
    """passes over the training images"""
    phases: list[PhaseKeys] | None = Field(None, max_length=100)
    """what comes before the full setting: a list of {epochs: E, size: pixels, timesteps: T, alpha: strength of gradient
    scaling}, in order, each but epochs as in the full setting by default; the last epochs are that"""
    batch_size: int = Field(128, ge=1, le=1_000_000)
    """images per step, over all processes"""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """sgd (Nesterov momentum), adamw, or muon (timm's: AdamW on biases, depth-wise convolutions and what is no matrix
    of 4 x 4 or more, or over 128 times as long as wide)"""
    lr: Rate = 0.1
    """peak learning rate for this batch size"""
    layer_decay: Share = 1.0
    """each block learns this many times as fast as the one behind it, the head at lr; 1 for all alike"""
    momentum: Share = 0.9
    """of sgd and muon"""
    weight_decay: Rate = 5e-4
    """on weights; not on biases and normalisation"""
    warmup_epochs: float = Field(1.0, ge=0, le=_MOST_EPOCHS)
    """linear warm-up to lr, at most half of `epochs`; then where `schedule`, which counts from the first step, is by
    then"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """how the learning rate falls: cosine or linear"""
    min_lr: Rate = 0.0
    """learning rate at the end"""
    clip_grad: float = Field(0.0, ge=0, le=_MOST)
    """largest gradient norm, 0 for no clipping"""
    loss: Literal["ce", "tet"] = "ce"
    """ce (cross-entropy of the mean logits) or tet (of every time step)"""
    tet_lambda: Share = 0.05
    """weight of TET's regularisation towards logits of 1"""
    label_smoothing: Share = 0.0
    """0 to 1"""
    spike_penalty: float = Field(0.0, ge=0, le=_MOST)
    """weight in the loss of the mean firing rate, over layers of neurons (as Pellegrini et al. 2021, arXiv 2011.06846,
    with the rate itself for its square), for sparser networks; 0 for none"""
    ema: Share = 0.0
    """decay of the weights' exponential moving average, which is then what is kept, at step n 1 - n^(-2/3) at most; 0
    for none"""

    crop: int = Field(4, ge=0, le=256)
    """random crop after padding by this many pixels, 0 for none"""
    hflip: bool = True
    """random mirror image"""
    auto_augment: Literal["none", "autoaugment", "randaugment", "nda"] = "none"
    """none; of images autoaugment (CIFAR-10 policy) or randaugment; of event frames nda (Li et al. 2022)"""
    randaugment_ops: int = Field(1, ge=0, le=16)
    """operations per image"""
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    """0 to 30"""
    cutout: int = Field(0, ge=0, le=4096)
    """side of a zeroed square in pixels, 0 for none"""
    erasing: Share = 0.0
    """probability of erasing a random rectangle (arXiv 1708.04896)"""
    mixup: Alpha = 0.0
    """alpha of mixup, 0 for none"""
    cutmix: Alpha = 0.0
    """alpha of cutmix, 0 for none"""
    mix_prob: Share = 1.0
    """probability of mixing a batch"""

    weights: Literal["fp32", "fp16"] = "fp32"
    """what the checkpoint stores and the result is measured with: fp32, or fp16, half as large"""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """off, bf16, fp16, or auto: bf16 where the processor is faster in it, else off"""
    channels_last: bool = True
    """memory layout"""
    kernel: Literal["auto", "fused", "reference"] = "auto"
    """which code runs the neurons: auto, fused or reference; see zoo/kernels"""
    grad_checkpointing: bool = False
    """keep the spikes between stages only and compute the rest twice"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto (cuda where there is one), cpu, cuda"""
    seed: int = Field(0, ge=0, le=10**18)
    """of initialisation, data order, augmentation and dropout"""

    out: Text | None = None
    """run directory; runs/<model>.<tag>-seed<seed> by default"""
    resume: bool = False
    """go on where the run directory's last state ends, bit-exactly"""
    checkpoint_minutes: Rate = 5.0
    """save the training state this often, and at every epoch's end"""
    tensorboard: bool = False
    """also write TensorBoard events (needs the extra tensorboard)"""
    comparison: Text | None = None
    """name of the comparison that this run is part of; <model>.<tag> by default"""
    test_reads: int = Field(1, ge=1, le=_MOST)
    """how many runs of that comparison read the test set"""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise sentence(error, type(self), "recipe key") from None
        self._check()
        self.tag = self.tag or f"t{self.timesteps}_{dataset_name(self.dataset)}"
        self.out = str(user_path(self.out or f"runs/{self.model}.{self.tag}-seed{self.seed}"))
        self.comparison = self.comparison or f"{self.model}.{self.tag}"

    def _check(self) -> None:
        """Raises ZooError where keys contradict each other."""
        if self.tag is not None and not re.fullmatch(TAG, self.tag):
            form = "letters, digits, '_', '-' and, but for the first, '.', at most 100"
            raise ZooError(f"recipe key tag may hold {form}, not {quoted(self.tag)}")
        if "." in self.model:
            init = f"--init {self.model} starts from its weights"
            raise ZooError(f"recipe key model takes an architecture, not the checkpoint {quoted(self.model)}: {init}")
        if self.optimizer == "sgd" and self.momentum == 0:
            raise ZooError("recipe key momentum must be above 0 for sgd, which is Nesterov's here")
        if self.min_lr > self.lr:
            must = f"must not be above lr, {self.lr:g}, but is {self.min_lr:g}"
            raise ZooError(f"recipe key min_lr {must}: lower it, too")
        for word in set(self.model_args or {}).intersection(_SAID_ELSEWHERE):
            where = "the data set" if word == "num_classes" else f"recipe key {word}"
            raise ZooError(f"recipe key model_args cannot hold {word!r}: {where} says it")
        if self.freeze and not self.init:
            raise ZooError("recipe key freeze keeps what init has learnt: give init, or freeze 0")
        if self.spike_penalty and self.grad_checkpointing:
            raise ZooError("recipe key spike_penalty needs the spikes that grad_checkpointing drops: use one of them")
        if self.img_size is not None:
            check_size(self.img_size)
        if self.img_size or self.dataset in BUILTIN or self.dataset.startswith(PREFIX):  # others say their size later
            self.check_phases()
        if sum(phase["epochs"] for phase in self.phases or []) >= self.epochs:
            left = f"recipe key phases must leave some of the {self.epochs} epochs to the full setting"
            raise ZooError(f"{left}: shorten them, or train without them (--phases null)")
        if self.model_args:
            from zoo.checkpoint.config import check_keywords  # which takes PyTorch

            check_keywords(self.model_args, "recipe key model_args")

    def check_phases(self) -> None:
        """Raises ZooError where a phase would enlarge the images."""
        full_size = self.img_size or SIZE
        for phase in self.phases or []:
            if (size := phase.get("size", 0)) > full_size:
                whose = "of larger images, img_size says their size"
                raise ZooError(f"size of a phase must be at most {full_size}, not {size}; {whose}")

    @property
    def plugins(self) -> list[str]:
        """The files that `plugin` names."""
        return [self.plugin] if isinstance(self.plugin, str) else self.plugin or []

    @property
    def data(self) -> dict[str, Any]:
        """The keywords of `zoo.load_dataset` for what it trains on."""
        data = {"name": self.dataset, "root": self.data_dir, "download": self.download, "img_size": self.img_size}
        return data | {"timesteps": self.timesteps, "slices": self.slices}

    def phase(self, epoch: int) -> Phase:
        """Returns the setting of an epoch (counted from 0); see `phases`."""
        size = self.img_size or SIZE
        for phase in self.phases or []:
            if epoch < phase["epochs"]:
                return Phase(phase.get("size", size), phase.get("timesteps", self.timesteps), phase.get("alpha"))
            epoch -= phase["epochs"]
        return Phase(size, self.timesteps, None)

    @property
    def settings(self) -> dict[str, Any]:
        """The part of it that says what a run computes, not where and how it happens."""
        from zoo.provenance import without_folders  # which takes PyTorch

        values = {key: value for key, value in self.model_dump().items() if key not in PLACE}
        if self.init:
            values["init"] = without_folders(self.init)
        kind, folder = split_folder(self.dataset)
        if kind:  # by the name of the folder, wherever it lies
            values["dataset"] = f"{kind}{Path(os.path.abspath(folder)).name}"
        if self.plugin:  # it may move, but without its file nobody could repeat the run
            files = [without_folders(file) for file in self.plugins]
            values["plugin"] = files[0] if isinstance(self.plugin, str) else files
        return values


DEFAULTS = {name: field.default for name, field in Recipe.model_fields.items()}
"""What a key is where a recipe leaves it out."""


def list_recipes() -> list[str]:
    """Returns the names of the package's recipes."""
    return sorted(file.stem for file in _HERE.glob("*.yaml"))


def load_recipe(path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe file, or one of the package by its name without `.yaml`, and overrides some of its keys.

    Raises:
        ZooError: no such recipe, not a flat mapping, an unknown key, or a value of the wrong type or range.
    """
    file = next((f for f in (user_path(path), _HERE / path, _HERE / f"{path}.yaml") if f.is_file()), None)
    if (user_path(path) / RECIPE).is_file():
        raise ZooError(f"{path} is a run directory: --resume {path} goes on with it")
    if file is None:
        raise one_of("recipe", path, list_recipes())
    values = read_yaml(file) or {}
    if not isinstance(values, dict):
        raise ZooError(f"{file} is not a recipe: expected lines of `key: value`")
    return Recipe(**{str(key): value for key, value in values.items()} | dict(overrides or {}))


def _value(key: str, text: str) -> Any:
    """Reads the value of an option: names and places as they are ("folder:a b #1"), everything else as YAML."""
    kind = Recipe.model_fields[key].annotation
    if kind == Text | None and text in ("null", ""):
        return None
    is_text = kind in (str, Text | None) or get_origin(kind) is Literal
    return text if is_text else parse_yaml(text, f"the value of --{key}, {text!r},")


def parse_command_line(argv: list[str] | None) -> Recipe:
    """Turns `RECIPE.yaml [--key value ...]`, or `--resume RUN_DIR`, into a Recipe; --help lists every
    key."""
    parser = CommandParser(
        prog="python -m recipes.train",
        usage="%(prog)s RECIPE [--key value ...]\n       %(prog)s --resume RUN_DIR",
        description="Train a spiking network from a recipe: a flat YAML file, every key of which can be overridden.",
        epilog="example: python -m recipes.train sresnet19_w16_gs.t2_cifar10 --epochs 3 --data-dir DATA_ROOT",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a YAML file, or the name of one in recipes/")
    add_keys(parser)
    given = vars(parser.parse_args(argv))
    path = given.pop("recipe")
    if (run := given["resume"]) not in (None, "true", "false"):
        if path is not None or not (user_path(run) / RECIPE).is_file():
            wrong = f"{run!r} is none" if path is None else f"there is a recipe, {path}, too"
            raise ZooError(f"--resume RUN_DIR goes on with a run directory, by itself, and {wrong}")
        if given["out"]:
            raise ZooError(f"--resume {run} goes on in that directory: leave --out {given['out']} out")
        path = os.path.join(run, RECIPE)
        given |= {"resume": "true", "out": str(user_path(run))}  # which may have moved
    elif path is None:
        raise ZooError(f"name a recipe, such as {list_recipes()[-1]}, or --resume RUN_DIR (see {parser.prog} --help)")
    return load_recipe(path, said_keys(given))


def add_keys(parser: CommandParser, without: Collection[str] = (), usual: Mapping[str, Any] = {}) -> None:
    """Gives a command an option for each key of a recipe, but for some; `usual` are defaults of its own."""
    for name, field in Recipe.model_fields.items():
        if name in without:
            continue
        default = usual.get(name, field.default)
        text = (field.description or "") + ("" if default is None else f" (default: {default})")
        low = [limit.ge for limit in field.metadata if isinstance(limit, Ge)]
        high = [limit.le for limit in field.metadata if isinstance(limit, Le)]
        text += f" [{low[0]} to {high[0]:g}]" if low and high else ""
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        if name == "plugin":
            options = {"action": "append"}
        flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        parser.add_argument(*flags, dest=name, metavar="X", help=text.replace("%", "%%"), **options)


def said_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the options of `add_keys` that were given."""
    said = {key: _value(key, text) for key, text in given.items() if text is not None and key != "plugin"}
    if plugin := given.get("plugin"):  # names of files, as every other command takes them
        said["plugin"] = plugin if len(plugin) > 1 else plugin[0]
    return said


def check_unused(recipe: Recipe) -> None:
    """Raises ZooError where a run directory holds a run that is not to be gone on with."""
    if (Path(recipe.out or "") / STATE).exists() and not recipe.resume:
        raise ZooError(f"{recipe.out} already holds a run: --resume goes on with it, --out names another directory")
