"""How long a step takes: `python -m recipes.bench step --model sresnet19_w32 --batch 32 --amp bf16 --against identity`.

What is timed is what training does on every batch: forward, loss, backward, optimiser, with the data on the device. The
floor is the same network with identity in place of its neurons: convolutions, normalisation and optimiser only.
"""

import argparse
import contextlib
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile
from tqdm import tqdm

import zoo
from zoo.errors import ZooError, run_command
from zoo.files import write_json
from zoo.models.sresnet import SResNet
from zoo.neurons import SpikingNeuron
from zoo.neurons.base import input_current
from zoo.provenance import provenance
from zoo.scaling.layers import SpikingConv2d, SpikingLinear
from zoo.scaling.spec import resolve_scaling

from .commands import parse_bench
from .lineage import size_keyword
from .processes import amp_dtype, amp_name, computes_in_bf16, keep_memory, pick_device

Step = Callable[[], Any]

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class IdentityNeuron(nn.Module):
    """Passes the normalised, summed current on: what a network costs without its neurons."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x: Tensor, **current: Any) -> Tensor:
        """Returns the current itself, as `LIF.forward` takes it."""
        return input_current(x, self.timesteps, **current)


def without_neurons(model: nn.Module) -> nn.Module:
    """Returns a copy of the network with `IdentityNeuron` for every layer of neurons, and without gradient scaling."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, SpikingNeuron):
            model.set_submodule(name, IdentityNeuron(module.timesteps))
        elif isinstance(module, SpikingConv2d | SpikingLinear):
            module.scale_by(None)
    return model


def bench(a: argparse.Namespace) -> dict[str, Any]:
    """Times a step of a network, and of what it is compared with, in turn: what a command line says, see `parse_bench`.

    With a rule of `forms` that keeps its factor for n steps, a run is n steps of everything (of several such rules,
    their least common multiple), and times are those of one.

    Returns:
        A measurement, JSON values: median_ms, p10_ms, p90_ms of a step, kernel_build_ms (of the neurons' kernel, or
        of finding it in the cache), first_step_ms (with everything else that happens once), images_per_second,
        peak_bytes, saved_bytes_per_image, the same for everything in `against`, provenance.

    Raises:
        ZooError: an unknown model, value or device, or a peer that does not compute the same.
    """
    here = pick_device(a.device)
    origin = provenance(gpu=here.type == "cuda")
    dtype = amp_dtype(a.amp, here)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # as training has it
    torch.manual_seed(0)
    build = partial(
        zoo.create_model, a.model, timesteps=a.timesteps, surrogate=a.surrogate, stem_stride=a.stem_stride,
        kernel=a.kernel,
    )  # fmt: skip
    if a.img_size:
        build = partial(build, **size_keyword(a.model, a.img_size, stem_stride=a.stem_stride))
    network = build().to(here)
    size = network.pretrained_cfg["input_size"]
    size = (size[0], a.img_size, a.img_size) if a.img_size else size
    images = torch.randn(a.batch, *size, device=here)
    labels = torch.randint(0, network.num_classes, (a.batch,), device=here)
    make = partial(_arm, a.mode, images=images, labels=labels)
    begun = time.perf_counter()
    kernel_name = network.kernel_for(here.type, dtype or torch.float32)  # builds it, the first time on a machine
    build_ms = 1e3 * (time.perf_counter() - begun)

    def own(**changes: Any) -> _Arm:
        other = build(**changes)
        other.load_state_dict(network.state_dict())
        return make(other.to(here), dtype, a.layout, compile=a.compile, checkpointing=a.grad_checkpointing)

    arms, difference = {"model": own()}, None
    arms |= {name: own(scaling=form) for name, form in a.forms.items()}
    for name in a.against:
        if name == "identity":
            floor = without_neurons(network)
            arms |= {
                f"identity {place}": make(floor, dtype, place, compile=a.compile, checkpointing=a.grad_checkpointing)
                for place in LAYOUTS
            }
        elif name == "spikingjelly":
            if not isinstance(network, SResNet):
                raise ZooError(f"{a.model} has no counterpart in SpikingJelly here: only the sresnet family has")
            from .peers import SpikingJellyResNet, check_equal

            difference = check_equal(network, SpikingJellyResNet(network), size)
            for precision in dict.fromkeys((None, dtype)):
                peer = SpikingJellyResNet(network).to(here)
                arms[f"spikingjelly {amp_name(precision)}"] = make(peer, precision, "contiguous")
        else:
            arms[name] = own(**{"kernel": "reference"} if name == "reference" else {"scaling": "none"})
    length = math.lcm(*(rule.every for rule in map(resolve_scaling, a.forms.values()) if rule))
    with contextlib.ExitStack() as inside:
        if a.mode == "inference":
            for arm in arms.values():
                inside.enter_context(zoo.event_driven(arm.network))
        timed = alternate({name: arm.step for name, arm in arms.items()}, a.runs, a.warmup, here, length)
        peaks = {name: peak_bytes(arm.step, here) for name, arm in arms.items()}
    for name, arm in arms.items():
        timed[name]["images_per_second"] = a.batch / timed[name]["median_ms"] * 1e3
        timed[name]["peak_bytes"] = peaks[name]
        if a.mode == "step":
            timed[name]["saved_bytes_per_image"] = saved_bytes(arm.forward, list(arm.network.parameters())) / a.batch
    asked = {key: getattr(a, key) for key in ("mode", "model", "batch", "timesteps", "surrogate", "layout", "compile")}
    asked |= {key: getattr(a, key) for key in ("grad_checkpointing", "runs", "stem_stride")}
    result: dict[str, Any] = {
        "schema": 1, "kind": "speed", **asked, "input_size": list(size), "scaling": network.model_args["scaling"],
        "amp": amp_name(dtype), "native_bf16": computes_in_bf16(here), "kernel": kernel_name,
        "kernel_build_ms": build_ms, **timed.pop("model"),
    }  # fmt: skip
    if a.forms:
        result["scaling_forms"] = {name: timed.pop(name) for name in a.forms}
    floors = {name: arm for name, arm in timed.items() if name.startswith("identity ")}
    if floors:
        best = min(floors, key=lambda name: floors[name]["median_ms"])
        result["identity"] = {"layout": best.removeprefix("identity "), **floors[best], "all": floors}
        result["times_identity"] = result["median_ms"] / floors[best]["median_ms"]
    result |= {name.replace(" ", "_"): arm for name, arm in timed.items() if name not in floors}
    if difference is not None:
        result["largest_difference_to_spikingjelly_float64"] = difference
    return result | origin


class _Arm(NamedTuple):
    """One network ready to be timed: `step` runs all of it, `forward` up to the loss."""

    network: nn.Module
    forward: Step
    step: Step


def _arm(
    mode: str, network: nn.Module, dtype: torch.dtype | None, layout: str, *, images: Tensor, labels: Tensor,
    compile: bool = False, checkpointing: bool = False,
) -> _Arm:  # fmt: skip
    network = copy.deepcopy(network).train(mode == "step")
    cast(Any, network).to(memory_format=LAYOUTS[layout])
    if checkpointing:
        network.set_grad_checkpointing()  # type: ignore[operator]
    images = images.contiguous(memory_format=LAYOUTS[layout])
    device = images.device.type
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1, weight_decay=5e-4, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)
    run: Callable[[Tensor], Tensor] = torch.compile(network) if compile else network
    clear: Any = getattr(network, "clear", None)  # of a peer whose neurons keep state

    def forward() -> Tensor:
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            loss = F.cross_entropy(run(images).float(), labels)
        if clear is not None:
            clear(network)
        return loss

    def step() -> None:
        keep_memory(clear is None)  # a peer runs as its users run it, with glibc's memory handling as it is
        if mode == "inference":
            torch.no_grad()(forward)()
            return
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(forward()).backward()
        scaler.step(optimizer)
        scaler.update()

    return _Arm(network, forward, step)


# -- how a step is timed and weighed


def alternate(
    steps: Mapping[str, Step], runs: int, warmup: int, device: torch.device, length: int = 1
) -> dict[str, dict[str, Any]]:
    """Times several steps in turn, so that a change in the machine's speed meets them alike; a run is `length` steps,
    and its time that of one.

    Returns:
        For each: `ms` of every timed run in order, median_ms, p10_ms, p90_ms, and first_step_ms: of the very first run,
        which also builds and tunes kernels.
    """
    first = {name: _time(step, device) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(warmup + runs), desc="bench", unit="round", disable=None, leave=False):
        for name, step in steps.items():
            times[name].append(_time(partial(_repeat, step, length), device) / length)
    result = {}
    for name, ms in times.items():
        timed = sorted(ms[warmup:])
        cuts = statistics.quantiles(timed, n=10, method="inclusive") if len(timed) > 1 else timed * 9
        median = statistics.median(timed)
        row: dict[str, Any] = {"median_ms": median, "p10_ms": cuts[0], "p90_ms": cuts[8], "first_step_ms": first[name]}
        result[name] = row | {"ms": [round(value, 3) for value in ms[warmup:]]}
    return result


def _repeat(step: Step, length: int) -> None:
    for _ in range(length):
        step()


def _time(step: Step, device: torch.device) -> float:
    """Returns the milliseconds of one run: by CUDA's own events there, by the clock elsewhere."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        step()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)
    begun = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - begun)


def saved_bytes(forward: Step, weights: list[Tensor]) -> int:
    """Returns the bytes that a forward pass keeps for its backward, each memory counted once, weights left out."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, int] = {}
    keep = []

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            # What is saved of a view that repeats its memory is the memory.
            seen[storage.data_ptr()] = storage.nbytes()
            keep.append(x)  # no address may be used twice while we count
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        forward()
    return sum(seen.values())


def peak_bytes(step: Step, device: torch.device) -> int:
    """Returns the most memory that tensors hold at once during a step, beyond what they held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def run(a: argparse.Namespace) -> None:
    """Times what a command line says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Profiler")
        result = bench(a)
    if a.json:
        write_json(a.json, result)
    print(_summary(result))
    if not result["native_bf16"] and result["amp"] == "bf16":
        print("note: this processor does not compute in bfloat16, so its convolutions are emulated")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_bench(argv))


def _summary(result: dict[str, Any]) -> str:
    arms = {"model": result} | (result["identity"]["all"] if "identity" in result else {})
    arms |= {k: v for k, v in result.items() if isinstance(v, dict) and "median_ms" in v and k != "identity"}
    arms |= result.get("scaling_forms", {})
    what = f"{result['model']} {result['mode']}, batch {result['batch']}, T = {result['timesteps']}, {result['amp']}"
    lines = [f"{what}, {result['kernel']} kernel, {result['layout']}"]
    for name, arm in arms.items():
        size = arm.get("saved_bytes_per_image")
        saved = "" if size is None else f", {size / 1e6:.2f} MB saved per image"
        lines.append(
            f"  {name:24} {arm['median_ms']:9.2f} ms  (p10 {arm['p10_ms']:.2f}, p90 {arm['p90_ms']:.2f}), first "
            f"{arm['first_step_ms']:.0f} ms, {arm['median_ms'] / result['median_ms']:.2f} x{saved}, "
            f"peak {arm['peak_bytes'] / 1e6:.0f} MB"
        )
    if "times_identity" in result:
        lines.append(f"  {result['times_identity']:.3f} x the identity floor")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
