"""What cheap forms of a gradient scaling rule cost, and how near their factors are to the exact ones.

`python -m recipes.scaling_cost` trains a network on real images with the exact rule for a while. Then, over further
training steps, every cheap form sees the spikes that the exact rule sees, keeps its own factors, and both are compared,
layer by layer: in steps where it computes a factor and in those where it uses an old one. Times are of whole training
steps, alternating in one process, over as many steps as the slowest form takes to come round.
"""

import copy
import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import zoo
from zoo.data import DataSet, load_dataset, normalise
from zoo.errors import CommandParser, ZooError, one_of, run_command
from zoo.files import check_writable, parse_yaml, write_json
from zoo.network import SpikingNetwork
from zoo.plugins import add_plugin_option
from zoo.provenance import provenance
from zoo.scaling.layers import Geometry, KeptFactor, ScaledLayer, SpikingConv2d
from zoo.scaling.rules import WeightGradient
from zoo.scaling.spec import Scaling, resolve_scaling
from zoo.specs import check_integer

from .augment import random_crop, random_flip
from .bench import Step, alternate
from .processes import keep_memory

CHEAP: list[dict[str, Any]] = [
    {"batch": 0.5},
    {"batch": 0.25},
    {"batch": 0.125},
    {"every": 4},
    {"every": 16},
    {"every": 8, "average": 0.5},
    {"every": 16, "average": 0.8},
    {"every": 8, "average": 0.8, "batch": 0.5},
    {"precision": "bf16"},
]
"""What is tried unless --forms says otherwise."""
_CHEAPER = ["rank", "batch", "every", "average", "precision"]
"""What a form may say: how its factors are computed, not which, or of which layers."""


class _Watch:
    """Stands in for the exact rule of one layer, and lets the cheap forms look on."""

    def __init__(self, layer: SpikingConv2d, rule: Scaling, forms: dict[str, Scaling]):
        self.layer, self.rule, self.recording, shape = layer, rule, False, layer.weight.shape
        self.seen: dict[str, list[float]] = {name: [] for name in forms}
        self.kept = {n: KeptFactor(f, torch.zeros(f.steps(layer.timesteps), *shape)) for n, f in forms.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def factor(self, pre: Tensor, post: Tensor, operator: WeightGradient, dtype: torch.dtype) -> Tensor:
        exact = self.rule.factor(pre, post, operator, dtype)
        weight, geometry = self.layer.weight.detach(), Geometry.of(self.layer)
        for name, kept in self.kept.items():
            near = kept(pre, post, weight, geometry)
            if self.recording:
                self.seen[name].append(correlation(near, exact))
        return exact


def correlation(near: Tensor, exact: Tensor) -> float:
    """Returns Pearson's correlation, over the entries of a layer's factors; the smallest of all time steps."""
    # A rule may give one number for all entries of a channel.
    exact, near = (z.flatten(1) for z in torch.broadcast_tensors(exact, near))
    a, b = (z - z.mean(1, keepdim=True) for z in (exact, near))
    norms = a.norm(dim=1) * b.norm(dim=1)
    return float(torch.where(norms > 0, (a * b).sum(1) / norms, 1.0).min())


def measure(
    model: str, rule: Scaling, forms: list[dict[str, Any]], data: DataSet, *,
    timesteps: int, batch: int, train_steps: int, checks: int, rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Measures correlations and times of cheap forms of `rule`, given as the keys that differ.

    Returns:
        A measurement, JSON values: for each form the smallest correlation of each layer over `checks` random steps, and
        the time of a training step relative to plain STBP.
    """
    origin = provenance()
    rules = {_name(form): resolve_scaling(rule._asdict() | form) or rule for form in forms}
    torch.manual_seed(0)
    network = zoo.create_model(model, num_classes=len(data.classes), timesteps=timesteps, scaling=rule._asdict())
    cast(Any, network).to(memory_format=torch.channels_last).train()
    step = _trainer(network, data, batch)
    for i in tqdm(range(train_steps), desc="train", unit="step"):
        step(i)

    layers = {n: m for n, m in network.named_modules() if isinstance(m, SpikingConv2d) and m.scaling is not None}
    watches = {name: _Watch(layer, rule, rules) for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.scaling = cast(Scaling, watches[name])
    round_length = math.lcm(*(form.every for form in rules.values()))  # each computes its share of factors in a round
    # Two rounds first: averages settle. Then random steps out of four rounds, or forty steps.
    first, steps_seen = 2 * round_length, max(4 * round_length, 40)
    look_at = set(random.Random(0).sample(range(first, first + steps_seen), min(checks, steps_seen)))
    for i in tqdm(range(max(look_at) + 1), desc="compare", unit="step"):
        for watch in watches.values():
            watch.recording = i in look_at
        step(train_steps + i)
    for layer in layers.values():
        layer.scaling = rule

    arms = {"plain": None, "exact": rule, **rules}
    length = round_length if rounds else 0
    steps = {name: _timed(network, arm, data, batch, length) for name, arm in arms.items()} if rounds else {}
    timed = alternate(steps, rounds, 1, torch.device("cpu"))
    result: dict[str, Any] = {
        "schema": 1, "kind": "scaling cost", "model": model, "dataset": data.name, "timesteps": timesteps,
        "batch": batch, "rule": rule._asdict(), "train_steps": train_steps, "checks": len(look_at),
        "steps_a_round": length, "data_sha256": data.sha256, "forms": {},
    }  # fmt: skip
    for name in arms:
        row: dict[str, Any] = {}
        if name in rules:
            row["keys"] = next(form for form in forms if _name(form) == name)
            seen = {layer: watch.seen[name] for layer, watch in watches.items()}
            lowest = {layer: min(values) for layer, values in seen.items()}
            row |= {"worst_layer": min(lowest, key=lambda layer: lowest[layer]), "worst": min(lowest.values())}
            row |= {"mean": statistics.mean(x for values in seen.values() for x in values), "layers": lowest}
        if timed:
            row["ms_a_step"] = timed[name]["median_ms"] / length
            row["times_plain"] = timed[name]["median_ms"] / timed["plain"]["median_ms"]
            row["rounds_ms"] = timed[name]["ms"]
        result["forms"][name] = row
    return result | origin


def _name(form: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in form.items())


def _trainer(network: SpikingNetwork, data: DataSet, batch: int) -> Callable[[int], None]:
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1, weight_decay=5e-4, momentum=0.9)
    order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(0))

    def step(i: int) -> None:
        index = order[torch.arange(i * batch, (i + 1) * batch) % len(order)]
        images = random_flip(random_crop(data.train_images[index], 4))
        x = normalise(images, data.mean, data.std).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(x), data.train_labels[index]).backward()
        optimizer.step()

    return step


def _timed(network: SpikingNetwork, rule: Scaling | None, data: DataSet, batch: int, length: int) -> Step:
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, ScaledLayer):
            module.scale_by(rule if module.scaling is not None else None)
    step = _trainer(copied, data, batch)

    return lambda: [step(i) for i in range(length)]


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m recipes.scaling_cost", description=__doc__)
    parser.add_argument("--model", default="sresnet19_w32", help="architecture (%(default)s)")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100, digits or folder:DIR (%(default)s)")
    parser.add_argument("--data-dir", help="folder with torchvision's CIFAR files; SNNZOO_DATA by default")
    parser.add_argument("--rule", default="causal_trace", help="YAML: a preset, or {name: ..., alpha: ...}")
    parser.add_argument("--forms", help="YAML: a list of the keys that differ, [{batch: 0.25}, {every: 8}]")
    parser.add_argument("--timesteps", type=int, default=4, help="time steps (4)")
    parser.add_argument("--batch", type=int, default=32, help="images per step (32)")
    parser.add_argument("--train-steps", type=int, default=300, help="training steps before the comparison (300)")
    parser.add_argument("--checks", type=int, default=12, help="random steps at which factors are compared (12)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, 0 for none (5)")
    parser.add_argument("--json", metavar="FILE", help="write the measurement here")
    add_plugin_option(parser)
    options = parser.parse_args(argv)
    lowest = {"timesteps": 1, "batch": 1, "train_steps": 0, "checks": 1, "rounds": 0}
    numbers = {key: check_integer(f"--{key.replace('_', '-')}", getattr(options, key), lowest[key]) for key in lowest}
    rule = resolve_scaling(parse_yaml(options.rule, "--rule"))
    if rule is None or rule.preset.locality != "weight" or rule.stateful:
        raise ZooError(f"--rule takes an exact rule that scales weight gradients, not {options.rule}")
    forms = CHEAP if options.forms is None else parse_yaml(options.forms, "--forms")
    if not isinstance(forms, list) or not forms or not all(isinstance(form, dict) and form for form in forms):
        raise ZooError(f"--forms takes a list of differing keys, [{{batch: 0.5}}, {{every: 8}}], not {options.forms}")
    for key in (key for form in forms for key in form):
        if key not in _CHEAPER:
            raise one_of("key of --forms", key, _CHEAPER)
    if options.json:
        check_writable(options.json)
    keep_memory()
    data = load_dataset(options.dataset, options.data_dir)
    result = measure(options.model, rule, forms, data, **numbers)
    for name, form in result["forms"].items():
        words = [f"{name:36}"]
        if "ms_a_step" in form:
            words.append(f"{form['ms_a_step']:6.0f} ms per step, {form['times_plain']:.3f} x plain")
        if "worst" in form:
            words.append(
                f"correlation {form['worst']:.3f} at worst ({form['worst_layer']}), {form['mean']:.3f} on average"
            )
        print("  ".join(words))
    if options.json:
        write_json(Path(options.json), result)


if __name__ == "__main__":
    run_command(main)
