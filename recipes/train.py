"""Train a spiking network from a recipe: `python -m recipes.train RECIPE.yaml [--key value ...]`.

A run directory holds recipe.yaml, summary.csv (a row per epoch), state.safetensors (to resume), and at the end the
checkpoint (model.safetensors, config.json) and result.json, in the schema of the leaderboard.
"""

import contextlib
import copy
import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import zoo
from zoo.checkpoint import CONFIG, config_of
from zoo.data import DataSet, load_dataset, normalisation, split
from zoo.data.images import folder_cfg
from zoo.errors import ZooError, one_line, run_command
from zoo.files import atomic_write, read_json, write_json
from zoo.load import check_name
from zoo.network import SpikingNetwork
from zoo.neurons import SpikingNeuron
from zoo.plugins import load_plugin
from zoo.provenance import provenance
from zoo.result import accuracy_result

from . import augment
from .compare import said
from .config import SCHEDULES, WEIGHT_TYPES, Phase, Recipe, parse_command_line
from .finetune import freeze
from .guard import (
    STEPS_OF_AN_ESTIMATE,
    FiniteGuard,
    measured,
    memory_named,
    run_directory,
    seconds_per_step,
    steps_left,
    tell_length,
)
from .initial import Beginning, create
from .interrupt import Interrupt
from .lineage import identity
from .outlived import StandardError
from .precision import amp_dtype, amp_name, resolve_amp
from .processes import keep_memory, mean_over_processes, start_processes, stop_processes
from .resume import RESULT, check_fits, complete, note_changes, saved_state, write_recipe
from .state import BEFORE, RunState
from .step import augmented, forward, loss_of, one_hot, seed


def train(recipe: Recipe) -> dict[str, Any]:
    """Run a recipe to its end and return its result (what result.json holds).

    Raises:
        ZooError: bad recipe or data, or a run directory that holds another run.
    """
    rank, world, device = start_processes(recipe.device)
    keep_memory()
    try:
        out = Path(recipe.out or "")
        with run_directory(out) if rank == 0 else contextlib.nullcontext(), memory_named(recipe):
            result = _train(recipe, rank, world, device)
    except BaseException:
        stop_processes(failed=True)
        raise
    stop_processes()
    return result


def _train(recipe: Recipe, rank: int, world: int, device: torch.device) -> dict[str, Any]:
    for plugin in recipe.plugins:
        load_plugin(plugin)
    check_name(recipe.model)
    out = Path(recipe.out or "")
    unit = 2 * world if recipe.mixup or recipe.cutmix else world
    batch_size = recipe.batch_size
    if batch_size % unit:
        raise ZooError(f"batch_size {batch_size} must be a multiple of {unit} with {world} process(es) and mixing")
    # Of the code that runs now, whatever happens to the checkout meanwhile.
    origin = provenance(gpu=device.type == "cuda")

    # Data: the whole set on the device; each process takes its slice of every batch.
    data = load_dataset(recipe.dataset, recipe.data_dir, recipe.download, img_size=recipe.img_size)
    if data.size != recipe.phase(recipe.epochs).size:  # one of somebody's own, in a size of its own
        recipe = dataclasses.replace(recipe, img_size=data.size)
    train_index, val_index = split(data, recipe.train_images, recipe.val_images)
    if len(train_index) < batch_size:
        raise ZooError(f"batch_size {batch_size} is more than the {len(train_index)} training images")
    steps_per_epoch = len(train_index) // batch_size
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    held_out = data.train_images[val_index], data.train_labels[val_index]
    if data.val_images is not None and data.val_labels is not None:
        held_out = data.val_images, data.val_labels

    # Model, optimiser, schedule.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    saved = saved_state(out, recipe, rank)
    beginning = Beginning.again(saved["beginning"]) if saved and "beginning" in saved else Beginning.of(recipe)
    seed(recipe.seed)
    model = create(recipe, data, beginning.taken).to(device)
    mean, std = normalisation(model, data.mean, data.std)
    data = data._replace(mean=mean, std=std)
    _check_phases(model, recipe, device, batch_size // world)
    config_of(model, tag=recipe.tag or "", data_cfg=_data_cfg(data), recipe=recipe.settings)  # before the work
    frozen = freeze(model, recipe.freeze)
    model.set_grad_checkpointing(recipe.grad_checkpointing)
    beginning.load_into(model, recipe, say=rank == 0 and not saved)
    if recipe.channels_last:
        cast(Any, model).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum,
        layer_decay=recipe.layer_decay if recipe.layer_decay < 1 else None,
    )  # fmt: skip
    scheduler, _ = create_scheduler_v2(
        optimizer,
        **SCHEDULES[recipe.schedule],
        num_epochs=recipe.epochs,
        warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 2),
        warmup_lr=recipe.lr / 100,
        min_lr=recipe.min_lr,
        updates_per_epoch=steps_per_epoch,
        step_on_epochs=False,
    )
    ema = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    precision = resolve_amp(recipe.amp, device)
    if saved and (before := saved.get("amp", precision)) != precision:  # on another device, "auto" is another
        print(f"{out} goes on with amp {before}, as it was started: here, auto is {precision}", file=sys.stderr)
        precision = before
    amp = amp_dtype(precision, device)
    kernel = model.kernel_for(device.type, amp or torch.float32)
    origin["versions"]["kernel"] = kernel  # what runs the neurons: another one rounds otherwise
    scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
    network: nn.Module = _replicated(model, recipe) if world > 1 else model
    mix = None
    if recipe.mixup or recipe.cutmix:
        mix = Mixup(recipe.mixup, recipe.cutmix, prob=recipe.mix_prob, label_smoothing=recipe.label_smoothing,
                    num_classes=len(data.classes))  # fmt: skip

    # Where the run is: at its beginning, or where its last state says.
    total = recipe.epochs * steps_per_epoch
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
    if ema:
        parts["ema"] = ema.module
    about = {"recipe": recipe.to_dict(), "origin": origin, "world": world, "data_sha256": data.sha256}
    about |= {"beginning": beginning.to_dict(), "amp": precision}
    run = RunState(about, parts, running=torch.zeros(3, dtype=torch.float64, device=device))
    if saved:
        check_fits(saved, out, about, total)
        if saved["step"] == total and (out / RESULT).exists():
            return complete(out, recipe)
        note_changes(saved["origin"], origin, out, say=rank == 0)
        run.restore(saved)
        _enter(model, recipe.phase((run.step - 1) // steps_per_epoch))  # of when it was saved
        model.load_scaling_state(saved["scaling"])

    if rank == 0:
        write_recipe(out, recipe, saved)
        what = f"{recipe.model}.{recipe.tag} on {len(train_index)} images of {data.name}, seed {recipe.seed}"
        how = f"{device}, {amp_name(amp)}, {kernel} kernel"
        print(f"{what}: {how}, {world} process(es), {total} steps -> {out}", flush=True)
    if total - run.step > STEPS_OF_AN_ESTIMATE:  # on all processes: a rule of gradient scaling may sum over them
        seconds = _time_step(model, recipe, data, device, amp, run.step // steps_per_epoch, batch_size // world)
        if rank == 0:
            tell_length(recipe, device, seconds * steps_left(recipe, run.step, steps_per_epoch))
    writer = _tensorboard(out) if recipe.tensorboard and rank == 0 else None
    # In a log file, where every update is a line of its own, one in ten seconds is enough.
    every = 0.1 if sys.stderr.isatty() else 10.0
    bar = tqdm(total=total, initial=run.step, desc="train", unit="step", disable=rank != 0,
               mininterval=every, maxinterval=every, file=StandardError())  # fmt: skip
    guard = FiniteGuard(model, recipe, scaled=scaler.is_enabled())

    run.start()
    with Interrupt(rank, world) as interrupt, bar:  # on an error, too, the bar ends its line
        # An epoch whose steps are done, and not what comes at its end, has sums of them in its state.
        ending = run.step % steps_per_epoch == 0 and bool(run.running[2])
        for epoch in range(run.step // steps_per_epoch - ending, recipe.epochs):
            phase = recipe.phase(epoch)
            _enter(model, phase)
            seed(recipe.seed, epoch)
            order = train_index[torch.randperm(len(train_index))]
            network.train()
            for module in frozen:
                module.eval()
            for batch in range(run.step - epoch * steps_per_epoch, steps_per_epoch):
                seed(recipe.seed, rank, run.step)
                scheduler.step_update(run.step)
                index = order[batch * batch_size :][:batch_size][rank::world].to(device, non_blocking=True)
                x, y = augment.resize(augmented(images[index], recipe, data), phase.size), labels[index]
                if mix:
                    x, target = mix(x, y)
                else:
                    target = one_hot(y, len(data.classes), recipe.label_smoothing)
                if recipe.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)

                optimizer.zero_grad(set_to_none=True)
                logits = forward(network, x, amp)
                loss = loss_of(logits.float(), target, recipe)
                scaler.scale(loss).backward()
                repeat = functools.partial(forward, model, x, amp) if world == 1 else None
                guard.watch(run.step + 1, loss, repeat)
                if recipe.clip_grad:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
                scaler.step(optimizer)
                scaler.update()
                run.step += 1
                guard.watch_scale(run.step, scaler.get_scale(), repeat)
                if ema:
                    ema.update(model, step=run.step)

                right = (logits.detach().mean(0).argmax(1) == y).double().mean()
                told = torch.full_like(right, interrupt.noted is not None)
                # At once, and not at the end of an epoch: the state that one process saves is that of all.
                means = mean_over_processes(torch.stack([loss.detach().double(), right, torch.ones_like(right), told]))
                run.running += means[:3]
                interrupt.hear(means[3])
                bar.update()
                due = rank == 0 and time.perf_counter() - run.saved_at > 60 * recipe.checkpoint_minutes
                if interrupt.stops or (due and run.step % steps_per_epoch):
                    if rank == 0:
                        guard.settle(run.step)
                        run.save(out)
                    interrupt.obey(run.step)

            # End of an epoch: a row of summary.csv, validation on the held-out images, a training state.
            guard.settle(run.step)
            loss_sum, right_sum, count = run.running.tolist()
            row: dict[str, Any] = {"epoch": epoch + 1, "lr": max(group["lr"] for group in optimizer.param_groups)}
            row |= {"train_loss": loss_sum / count, "train_top1": 100 * right_sum / count}
            if len(held_out[0]) and rank == 0:
                run.save(out)  # which may take minutes, in which somebody may not wait
                trained = ema.module if ema else model
                if trained.timesteps != recipe.timesteps:
                    # Not the model itself: it would lose the factors that it keeps.
                    trained = copy.deepcopy(trained)
                    trained.set_timesteps(recipe.timesteps)
                scores = measured(trained, *held_out, data, progress="validate")
                row |= {f"val_{key}": scores[key] for key in ("loss", "top1", "top5", "spikes_per_image")}
            row["seconds"] = round(run.seconds, 1)
            run.rows.append(row)
            run.running.zero_()
            if rank == 0:
                lines = [",".join(row), *(",".join(f"{value:.6g}" for value in r.values()) for r in run.rows)]
                atomic_write(out / "summary.csv", "\n".join(lines) + "\n")  # first, as a state of the end has all of it
                run.save(out)
                if writer:
                    for key, value in row.items():
                        writer.add_scalar(key, value, epoch + 1)
                    writer.flush()
            interrupt.obey(run.step)
            bar.set_postfix({k: f"{row[k]:.3g}" for k in ("train_loss", "train_top1", "val_top1") if k in row})
    if writer:
        writer.close()
    if rank != 0:
        return {}
    return _finish(recipe, run, ema.module if ema else model, data, len(train_index), held_out, beginning, amp)


def _finish(
    recipe: Recipe,
    run: RunState,
    trained: SpikingNetwork,
    data: DataSet,
    train_images: int,
    held_out: tuple[Tensor, Tensor],
    beginning: Beginning,
    amp: torch.dtype | None,
) -> dict[str, Any]:
    """The end of a run: the trained network, rounded, stored, and measured once on the test set."""
    out, origin, train_seconds = Path(recipe.out or ""), run.about["origin"], run.rows[-1]["seconds"]
    _round(trained, WEIGHT_TYPES[recipe.weights])  # so that what is measured is what is stored
    extra: dict[str, Any] = {"recipe": recipe.settings}
    started_from = {"started_from": [ancestor._asdict() for ancestor in beginning.chain]}
    extra |= {"init_sha256": beginning.sha256, **started_from} if recipe.init else {}
    dtype, tag = WEIGHT_TYPES[recipe.weights], recipe.tag or ""
    weights_sha256 = zoo.save_checkpoint(out, trained, tag=tag, data_cfg=_data_cfg(data), dtype=dtype, **extra)
    (out / BEFORE).unlink(missing_ok=True)  # of use no more
    part = (data.test_images, data.test_labels) if recipe.test else held_out
    if not len(part[0]):
        print(f"no test and no validation images: the checkpoint in {out} has no result", flush=True)
        return {}
    scores = measured(trained, *part, data)
    result = accuracy_result(
        trained, scores, data, tag=recipe.tag or "", split="test" if recipe.test else "validation",
        weights_sha256=weights_sha256, comparison=recipe.comparison, epochs=recipe.epochs, seed=recipe.seed,
        test_reads=recipe.test_reads if recipe.test else None, train_images=train_images,
        train_seconds=train_seconds, origin=origin,
    )  # fmt: skip
    result |= {"train_precision": amp_name(amp)}
    result |= {"recipe_sha256": identity(read_json(out / CONFIG)), **started_from}
    write_json(out / "result.json", result)
    print(f"{result['split']} {said(result)} -> {out}/result.json")
    return result


def _data_cfg(data: DataSet) -> dict[str, Any]:
    """What a checkpoint remembers of its data."""
    about = {"mean": data.mean, "std": data.std, "label_names": data.classes, "num_classes": len(data.classes)}
    return about | folder_cfg(data.size)


@torch.no_grad()
def _check_phases(model: SpikingNetwork, recipe: Recipe, device: torch.device, batch_size: int) -> None:
    """Refuse now what the network would refuse in the middle of the run; ends at the full setting."""
    model.eval()
    # Each once, and the last epoch's last, though an earlier one may be as that.
    for phase in reversed(dict.fromkeys(map(recipe.phase, reversed(range(recipe.epochs))))):
        _enter(model, phase)
        try:
            model(torch.zeros(1, 3, phase.size, phase.size, device=device))
        except (ZooError, RuntimeError) as error:
            images = f"images of {phase.size} x {phase.size} pixels"
            why = f"{recipe.model} cannot take {images}: {one_line(error)}"
            if phase.size != recipe.phase(recipe.epochs - 1).size:
                why = (
                    f"{recipe.model} cannot take {images}, as a phase of its recipe has them: say --phases without size"
                )
            raise ZooError(why) from error
        if batch_size == 1:
            try:  # batch normalisation over one value has no variance
                copy.deepcopy(model).train()(torch.zeros(1, 3, phase.size, phase.size, device=device))
            except ValueError as error:
                how = f"at {phase.size} x {phase.size} pixels and T = {phase.timesteps}"
                why = f"{recipe.model} cannot train on one image at a time {how}: {one_line(error)}"
                raise ZooError(f"{why}; batch_size must be two or more for each process") from error
    model.train()


def _replicated(model: SpikingNetwork, recipe: Recipe) -> DistributedDataParallel:
    """The network of one of several processes. At one time step nothing may depend on a parameter of neurons, such as
    GLIF's: then gradients are not waited for."""
    one_step = any(recipe.phase(epoch).timesteps == 1 for epoch in range(recipe.epochs))
    neurons = [module for module in model.modules() if isinstance(module, SpikingNeuron)]
    learn = any(True for neuron in neurons for _ in neuron.parameters())
    return DistributedDataParallel(model, find_unused_parameters=one_step and learn)


def _enter(model: SpikingNetwork, phase: Phase) -> None:
    model.set_timesteps(phase.timesteps)
    model.set_alpha(phase.alpha)


def _round(model: nn.Module, dtype: torch.dtype) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            rounded = value.to(dtype)
            if torch.isinf(rounded).any():
                raise ZooError(f"{name} is too large for {dtype}: go on with --resume --weights fp32")
            value.copy_(rounded)


def _time_step(
    model: SpikingNetwork,
    recipe: Recipe,
    data: DataSet,
    device: torch.device,
    amp: torch.dtype | None,
    epoch: int,
    batch_size: int,
) -> float:
    """About how many seconds a step of an epoch takes."""
    phase = recipe.phase(epoch)

    def run(probe: SpikingNetwork, images: int) -> Tensor:
        _enter(probe, phase)
        x = torch.zeros(images, *data.train_images.shape[1:], dtype=torch.uint8, device=device)
        x = augment.resize(augmented(x, recipe, data), phase.size)
        target = torch.full((images, len(data.classes)), 1 / len(data.classes), device=device)
        return loss_of(forward(probe, x, amp).float(), target, recipe)

    return seconds_per_step(model.train(), run, batch_size)


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        hint = "pip install -e '.[tensorboard]' in the checkout, or drop --tensorboard"
        raise ZooError(f"tensorboard is not installed: {hint}") from None
    return SummaryWriter(out)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    train(parse_command_line(argv))


if __name__ == "__main__":
    run_command(main)
