"""Train a spiking network from a recipe: `python -m recipes.train RECIPE.yaml [--key value ...]`.

A run directory holds recipe.yaml, summary.csv (a row per epoch), state.safetensors (to resume), and at the end the
checkpoint (model.safetensors, config.json) and result.json, in the schema of the leaderboard.
"""

import contextlib
import copy
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from tqdm import tqdm

import zoo
from zoo.checkpoint import CONFIG, check_can_be_saved
from zoo.data import SIZE, DataSet, load_dataset, normalisation, split
from zoo.data.images import folder_cfg
from zoo.errors import ZooError, one_line, out_of_memory, run_command
from zoo.files import atomic_write, read_json, write_json
from zoo.metrics import evaluate
from zoo.network import SpikingNetwork
from zoo.neurons import SpikingNeuron
from zoo.provenance import provenance
from zoo.result import accuracy_result
from zoo.scaling import KeptFactor, mean_over_processes

from . import augment
from .augment import augmented
from .commands import parse_train
from .compare import said
from .lineage import InitialWeights, create, freeze, recipe_sha256_of
from .processes import amp_dtype, amp_name, keep_memory, resolve_amp, start_processes, stop_processes
from .recipe import DEFAULTS, RESULT, Phase, Recipe
from .run import (
    LOG,
    STANDARD_ERROR,
    Interrupt,
    RunState,
    check_fits,
    note_changes,
    result_of_complete_run,
    run_directory,
    state_to_resume,
    write_recipe,
)

SCHEDULES: dict[str, dict[str, Any]] = {"cosine": {"sched": "cosine"}, "linear": {"sched": "poly", "decay_rate": 1.0}}
"""In timm's words."""
WEIGHT_TYPES = {"fp32": torch.float32, "fp16": torch.float16}
# Gradients of a loss scaled by less than float16's smallest normal number are infinite for another reason.
_SMALLEST_SCALE = 2.0**-14
_FEW_STEPS = 100
_LOOK_EVERY = 10
"""Steps on a GPU from one look at what it computed to the next: each look waits for it."""


def train(recipe: Recipe) -> dict[str, Any]:
    """Runs a recipe, whose plugins are loaded, to its end, and returns its result (what result.json holds).

    Raises:
        ZooError: bad recipe or data, a run directory that holds another run, or numbers that are not finite.
    """
    rank, world, device = start_processes(recipe.device)
    keep_memory()
    try:
        with run_directory(Path(recipe.out or "")) if rank == 0 else contextlib.nullcontext():
            trainer = Trainer(recipe, rank, world, device)
            if trainer.is_complete:
                result = result_of_complete_run(trainer.out, trainer.recipe)
            else:
                trainer.run()
                result = trainer.finish() if rank == 0 else {}
    except BaseException as error:
        stop_processes(failed=True)
        if problem := out_of_memory(error):
            advice = "lower batch_size" if recipe.grad_checkpointing else "set grad_checkpointing, or lower batch_size"
            raise ZooError(f"{problem}: {advice} (it is {recipe.batch_size})") from error
        raise
    del trainer  # no network may outlive the group of processes
    stop_processes()
    return result


class Trainer:
    """A training run in one of its processes: what it trains, on what, and how far it is."""

    def __init__(self, recipe: Recipe, rank: int, world: int, device: torch.device) -> None:
        self.recipe, self.rank, self.world, self.device = recipe, rank, world, device
        self.out, self.batch_size = Path(recipe.out or ""), recipe.batch_size
        unit = 2 * world if recipe.mixup or recipe.cutmix else world
        if self.batch_size % unit:
            must = f"must be a multiple of {unit} with {world} process(es) and mixing"
            raise ZooError(f"batch_size {self.batch_size} {must}")
        # Of the code that runs now, whatever happens to the checkout meanwhile.
        self.origin = provenance(gpu=device.type == "cuda")
        self._load_data()
        saved = state_to_resume(self.out, self.recipe, rank)
        self._build_network(saved)
        self._build_optimizer(saved)
        self._set_state(saved)
        if self.is_complete:
            return
        self.writer = _tensorboard(self.out) if recipe.tensorboard and rank == 0 else None
        if rank == 0:
            write_recipe(self.out, self.recipe, saved)

    # -- what is trained

    def _load_data(self) -> None:
        """Puts the whole set on the device, if that has room; each process takes its slice of every batch."""
        recipe = self.recipe
        data = load_dataset(**recipe.data)
        check_frames(data, recipe)
        if data.timesteps is None and data.size != (recipe.img_size or SIZE):  # somebody's own, in a size of its own
            self.recipe = recipe = recipe.model_copy(update={"img_size": data.size})
            recipe.check_phases()
        self.train_index, val_index = split(data, recipe.train_images, recipe.val_images)
        if len(self.train_index) < self.batch_size:
            raise ZooError(f"batch_size {self.batch_size} is more than the {len(self.train_index)} training images")
        self.steps_per_epoch = len(self.train_index) // self.batch_size
        self.images, self.labels = data.train_images, data.train_labels.to(self.device)
        if self.device.type != "cuda" or self.images.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2:
            self.images = self.images.to(self.device)
        self.held_out = data.train_images[val_index], data.train_labels[val_index]
        if data.val_images is not None and data.val_labels is not None:
            self.held_out = data.val_images, data.val_labels
        self.data = data

    def _build_network(self, saved: dict[str, Any] | None) -> None:
        recipe, data = self.recipe, self.data
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        initial = InitialWeights.remembered(saved["beginning"]) if saved else InitialWeights.load(recipe)
        seed(recipe.seed)
        self.model = model = create(recipe, data, initial.taken).to(self.device)
        self.frozen = freeze(model, recipe.freeze)
        mean, std = normalisation(model, data.mean, data.std)
        self.data = data = data._replace(mean=mean, std=std)
        self._try_phases()
        check_can_be_saved(model, tag=recipe.tag or "", data_cfg=_data_cfg(data), recipe=recipe.settings)
        model.set_grad_checkpointing(recipe.grad_checkpointing)
        initial.load_into(model, recipe, say=self.rank == 0 and not saved)
        self.initial = initial
        if recipe.channels_last:
            cast(Any, model).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _try_phases(self) -> None:
        """Refuses now what the network would refuse in the middle of the run; ends at the full setting."""
        recipe, images = self.recipe, min(2, self.batch_size // self.world)
        full = recipe.phase(recipe.epochs - 1)
        for phase in [p for p in dict.fromkeys(map(recipe.phase, range(recipe.epochs))) if p != full] + [full]:
            self._enter(phase)
            try:
                frames = self.data.timesteps is not None  # no phase changes them
                shape = self.data.train_images.shape[1:] if frames else torch.Size((3, phase.size, phase.size))
                tried = copy.deepcopy(self.model).train()
                tried(torch.zeros(images, *shape, device=self.device))
            except (ValueError, RuntimeError) as error:  # batch normalisation over one value has no variance
                what = "one image at a time" if images == 1 else "images"
                what += f" of {shape[-2]} x {shape[-1]} pixels at T = {phase.timesteps}: {one_line(error)}"
                hint = "; batch_size must be two or more for each process" if images == 1 else ""
                hint += "; a phase of its recipe has them: say --phases without size" if phase.size < full.size else ""
                raise ZooError(f"{recipe.model} cannot train on {what}{hint}") from error
            if made := sorted(tried.state_dict().keys() - self.model.state_dict().keys()):
                late = f"{recipe.model} makes {made[0]} in its first forward pass, when the optimiser is made"
                raise ZooError(f"{late}: make it in the constructor, or in the neuron's build(shape)")

    def _build_optimizer(self, saved: dict[str, Any] | None) -> None:
        """Makes what trains the network: optimiser, schedule, averaged weights, precision, mixing."""
        recipe, model = self.recipe, self.model
        self.optimizer = create_optimizer_v2(
            model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum,
            layer_decay=recipe.layer_decay if recipe.layer_decay < 1 else None,
        )  # fmt: skip
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, **SCHEDULES[recipe.schedule], num_epochs=recipe.epochs, warmup_lr=recipe.lr / 100,
            warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 2), min_lr=recipe.min_lr,
            updates_per_epoch=self.steps_per_epoch, step_on_epochs=False,
        )  # fmt: skip
        if recipe.ema and len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False))):
            raise ZooError("ema averages what has two names twice, and layers of this network share weights: ema 0")
        self.ema = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.precision = resolve_amp(recipe.amp, self.device)
        if saved and saved["amp"] != self.precision:  # on another device, "auto" is another
            before = f"goes on with amp {saved['amp']}, as it was started"
            if self.rank == 0:
                print(f"{self.out} {before}: here, auto is {self.precision}", file=sys.stderr)
            self.precision = saved["amp"]
        self.amp = amp_dtype(self.precision, self.device)
        self.kernel = model.kernel_for(self.device.type, self.amp or torch.float32)
        self.origin["versions"]["kernel"] = self.kernel  # what runs the neurons: another one rounds otherwise
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        self.network: nn.Module = model
        if self.world > 1:
            # Some may be unused, as GLIF's at one time step. And without it the first step would sum gradients in other
            # buckets than the others, so in another order: a run that goes on would end a bit otherwise.
            whole = model if self.device.type == "cuda" else _WithUnused(model)
            # Kept factors are the same in all, and as large as the weights: no reason to send them at each step.
            kept = [f"{name}.factor" for name, module in whole.named_modules() if isinstance(module, KeptFactor)]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(whole, kept)
            self.network = DistributedDataParallel(whole, find_unused_parameters=True)
        self.mix = None
        if recipe.mixup or recipe.cutmix:
            self.mix = Mixup(recipe.mixup, recipe.cutmix, prob=recipe.mix_prob, label_smoothing=recipe.label_smoothing,
                             num_classes=len(self.data.classes))  # fmt: skip

    def _set_state(self, saved: dict[str, Any] | None) -> None:
        """Sets where the run is: at its beginning, or where its last state says."""
        self.total = self.recipe.epochs * self.steps_per_epoch
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.ema:
            parts["ema"] = self.ema.module
        about = {"recipe": self.recipe.model_dump(), "origin": self.origin, "world": self.world}
        about |= {"data_sha256": self.data.sha256, "beginning": self.initial.to_dict(), "amp": self.precision}
        self.state = RunState(about, parts, running=torch.zeros(3, dtype=torch.float64, device=self.device))
        self.is_complete = False
        if not saved:
            return
        check_fits(saved, self.out, about)
        self.is_complete = saved["step"] == self.total and (self.out / RESULT).exists()
        if not self.is_complete:
            note_changes(saved["origin"], self.origin, self.out, say=self.rank == 0)
            self.state.restore(saved)
            self._enter(self.recipe.phase((self.state.step - 1) // self.steps_per_epoch))  # of when it was saved
            self.model.load_scaling_state(saved["scaling"])

    # -- the training

    def run(self) -> None:
        """Trains to the last epoch.

        Raises:
            ZooError: the loss, a weight or a gradient is not finite.
            SystemExit: the run was told to stop, and has saved its state.
        """
        recipe, run, rank, world = self.recipe, self.state, self.rank, self.world
        if rank == 0:
            what = f"{recipe.model}.{recipe.tag} on {len(self.train_index)} images of {self.data.name}"
            how = f"{self.device}, {amp_name(self.amp)}, {self.kernel} kernel, {world} process(es), {self.total} steps"
            print(f"{what}, seed {recipe.seed}: {how} -> {self.out}", flush=True)
            if self.total < _FEW_STEPS:
                few = f"{self.total} steps, {recipe.epochs} epochs of {self.steps_per_epoch}, teach little"
                hint = f"raise epochs, or lower batch_size (it is {self.batch_size})"
                print(f"warning: {few}: {hint}", file=sys.stderr)
        # In a log file, where every update is a line of its own, one in ten seconds is enough.
        every = 0.1 if sys.stderr.isatty() else 10.0
        bar = tqdm(total=self.total, initial=run.step, desc="train", unit="step", disable=rank != 0,
                   mininterval=every, maxinterval=every, file=STANDARD_ERROR)  # fmt: skip
        run.start()
        with Interrupt(rank, world, self.out) as interrupt, bar:  # on an error, too, the bar ends its line
            # An epoch whose steps are done, and not what comes at its end, has sums of them in its state.
            ending = run.step % self.steps_per_epoch == 0 and bool(run.running[2])
            for epoch in range(run.step // self.steps_per_epoch - ending, recipe.epochs):
                phase = recipe.phase(epoch)
                self._enter(phase)
                seed(recipe.seed, epoch)
                order = self.train_index[torch.randperm(len(self.train_index))]
                self.network.train()
                for module in self.frozen:
                    module.eval()
                for batch in range(run.step - epoch * self.steps_per_epoch, self.steps_per_epoch):
                    index = order[batch * self.batch_size :][: self.batch_size][rank::world]
                    loss, right = self._step(index, phase.size)
                    told = torch.full_like(right, interrupt.noted is not None)
                    # At once, and not at the end of an epoch: the state that one process saves is that of all.
                    means = mean_over_processes(torch.stack([loss.double(), right, torch.ones_like(right), told]))
                    run.running += means[:3]
                    bar.update()
                    if self._looks():
                        interrupt.hear(means[3])
                    due = rank == 0 and time.perf_counter() - run.saved_at > 60 * recipe.checkpoint_minutes
                    if interrupt.stops or (due and run.step % self.steps_per_epoch):
                        if rank == 0:
                            self._check_finite()  # a state that is saved is a good one
                            run.save(self.out)
                        interrupt.obey(run.step)
                row = self._end_epoch(epoch)
                interrupt.obey(run.step)
                if rank == 0:
                    tqdm.write(_line(row, recipe.epochs), file=STANDARD_ERROR)
        if self.writer:
            self.writer.close()

    def _step(self, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Takes one step of the optimiser on this process's images of a batch.

        Returns:
            Loss and share of right answers, of this process.
        """
        recipe, run, scaler = self.recipe, self.state, self.scaler
        seed(recipe.seed, self.rank, run.step)
        self.scheduler.step_update(run.step)
        y = self.labels[index.to(self.device, non_blocking=True)]
        images = self.images[index.to(self.images.device, non_blocking=True)].to(self.device)
        x = augmented(images, recipe, self.data)
        frames = self.data.timesteps
        x = augment.resize(x, size) if frames is None else x
        x, target = self.mix(x, y) if self.mix else (x, one_hot(y, len(self.data.classes), recipe.label_smoothing))
        if frames is not None:
            x = x.unflatten(1, (frames, -1))
        elif recipe.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)

        self.optimizer.zero_grad(set_to_none=True)
        with firing_rates(self.model if recipe.spike_penalty else None) as rates:
            logits = forward(self.network, x, self.amp)
        loss = loss_of(logits.float(), target, recipe)
        if rates:
            loss = loss + recipe.spike_penalty * torch.stack(rates).mean()
        scaler.scale(loss).backward()
        run.step += 1
        if self._looks():  # in float16, where a step with infinite gradients is skipped, at all but them
            self._check_finite(loss.detach(), gradients=not scaler.is_enabled())
        if recipe.clip_grad:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        scaler.step(self.optimizer)
        scaler.update()
        if scaler.is_enabled() and self._looks() and scaler.get_scale() < _SMALLEST_SCALE:  # halved at each of those
            self._check_finite(gradients=True)
        if self.ema:
            self.ema.update(self.model, step=run.step)
        return loss.detach(), (logits.detach().mean(0).argmax(1) == y).double().mean()

    def _looks(self) -> bool:
        """Returns whether to look at what this step computed, which waits for a GPU."""
        return self.device.type == "cpu" or self.state.step % _LOOK_EVERY == 0

    def _check_finite(self, loss: Tensor | None = None, *, gradients: bool = False) -> None:
        """Raises ZooError, with the first culprit's name, unless loss, weights and gradients are finite.

        A spiking network hides such numbers: NaN reaches no threshold, so it falls silent and its loss stays finite.
        """
        values = {f"the weight {k}": v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        if gradients:  # backward comes from the end: the last layer is the first
            backwards = reversed(list(self.model.named_parameters()))
            values |= {f"the gradient of {name}": p.grad for name, p in backwards if p.grad is not None}
        if loss is not None:
            values["the loss"] = loss
        if not math.isfinite(get_total_norm(list(values.values()))):
            culprit = next((name for name, value in values.items() if not value.isfinite().all()), "a norm")
            advice = f"Start again with a lower lr (it is {self.recipe.lr:g}) or with clip_grad"
            saved = f"{self.out} keeps what was saved before, which is good"
            text = f"step {self.state.step}: {culprit} is not finite. {advice} (it is {self.recipe.clip_grad:g})"
            raise ZooError(f"{text}; {saved}")

    def _end_epoch(self, epoch: int) -> dict[str, Any]:
        """Ends an epoch: validation on the held-out images, a row of summary.csv, a training state."""
        run = self.state
        self._check_finite()
        loss_sum, right_sum, count = run.running.tolist()
        row: dict[str, Any] = {"epoch": epoch + 1, "lr": max(group["lr"] for group in self.optimizer.param_groups)}
        row |= {"train_loss": loss_sum / count, "train_top1": 100 * right_sum / count}
        if len(self.held_out[0]) and self.rank == 0:
            run.save(self.out)  # validation may take minutes, in which somebody may not wait
            trained = self.trained
            if trained.timesteps != self.recipe.timesteps:
                # Not the model itself: it would lose the factors that it keeps.
                trained = copy.deepcopy(trained)
                trained.set_timesteps(self.recipe.timesteps)
            scores = self._evaluate(trained, self.held_out, "validate")
            row |= {f"val_{key}": scores[key] for key in ("loss", "top1", "top5", "spikes_per_image")}
        row["seconds"] = round(run.seconds, 1)
        run.rows.append(row)
        run.running.zero_()
        if self.rank == 0:
            lines = [",".join(row), *(",".join(f"{value:.6g}" for value in r.values()) for r in run.rows)]
            atomic_write(self.out / LOG, "\n".join(lines) + "\n")  # first, as a state of the end has all of it
            run.save(self.out)
        if self.writer:
            for key, value in row.items():
                self.writer.add_scalar(key, value, epoch + 1)
            self.writer.flush()
        return row

    def _evaluate(self, network: SpikingNetwork, part: tuple[Tensor, Tensor], progress: str) -> dict[str, Any]:
        # Without a backward pass twice the images of a step need less memory than the step.
        batch = min(256, max(1, 2 * self.batch_size // self.world))
        return evaluate(network, *part, self.data.mean, self.data.std, batch_size=batch, progress=progress)

    def _enter(self, phase: Phase) -> None:
        self.model.set_timesteps(phase.timesteps)
        self.model.set_alpha(phase.alpha)

    # -- its end

    @property
    def trained(self) -> SpikingNetwork:
        """The network that is kept: with averaged weights, if the recipe averages them."""
        return cast(SpikingNetwork, self.ema.module) if self.ema else self.model

    def finish(self) -> dict[str, Any]:
        """Rounds and stores the trained network, and measures it, once, on the test set."""
        recipe, run, out, dtype = self.recipe, self.state, self.out, WEIGHT_TYPES[self.recipe.weights]
        _round(self.trained, dtype)  # so that what is measured is what is stored
        extra: dict[str, Any] = {"recipe": recipe.settings}
        started_from = {"started_from": [ancestor.model_dump() for ancestor in self.initial.chain]}
        extra |= {"init_sha256": self.initial.sha256, **started_from} if recipe.init else {}
        weights_sha256 = zoo.save_checkpoint(
            out, self.trained, tag=recipe.tag or "", data_cfg=_data_cfg(self.data), dtype=dtype, **extra
        )
        part = (self.data.test_images, self.data.test_labels) if recipe.test else self.held_out
        if not len(part[0]):
            print(f"no test and no validation images: the checkpoint in {out} has no result", flush=True)
            return {}
        scores = self._evaluate(self.trained, part, "evaluate")
        result = accuracy_result(
            self.trained, scores, self.data, tag=recipe.tag or "", split="test" if recipe.test else "validation",
            weights_sha256=weights_sha256, comparison=recipe.comparison, epochs=recipe.epochs, seed=recipe.seed,
            test_reads=recipe.test_reads if recipe.test else None, train_images=len(self.train_index),
            train_seconds=run.rows[-1]["seconds"], origin=run.about["origin"],
        )  # fmt: skip
        result |= {"train_precision": amp_name(self.amp)}
        result |= {"recipe_sha256": recipe_sha256_of(read_json(out / CONFIG)), **started_from}
        write_json(out / RESULT, result)
        print(f"{result['split']} {said(result)} -> {out / RESULT}")
        return result


class _WithUnused(nn.Module):
    """A network beside a parameter that nothing uses: without one, PyTorch warns in each process that all are used;
    with one, it waits for a GPU at every step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.unused = network, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, per_step: bool) -> Tensor:
        return self.network(x, per_step=per_step)


# -- what a step is made of


def seed(*key: int) -> None:
    """Seeds every generator that a step draws from, by what it is: the run's seed, its process, its number.

    Zeros at the end of a key make no difference: a run's weights and its first step of process 0 draw from one stream.
    """
    words = np.random.SeedSequence(list(key)).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(int(words[0]))  # noqa: NPY002 (timm's Mixup draws from the global generator)
    random.seed(int(words[1]))


def check_frames(data: DataSet, recipe: Recipe) -> None:
    """Raises ZooError where a recipe asks of event frames what is done to images alone, or the other way round."""
    if data.timesteps is None:
        if recipe.auto_augment == "nda":
            raise ZooError("recipe key auto_augment: nda is for event frames, and this data set has images")
        if recipe.slices != DEFAULTS["slices"]:
            raise ZooError(f"recipe key slices: {recipe.slices} is for event recordings, and this data set has images")
        return
    if recipe.timesteps != data.timesteps:
        raise ZooError(f"{data.name} has {data.timesteps} frames of each recording: set timesteps to that")
    if any(phase.keys() & {"size", "timesteps"} for phase in recipe.phases or []):
        raise ZooError("recipe key phases: of event frames, no phase changes size or timesteps; alpha alone")
    if recipe.auto_augment in ("autoaugment", "randaugment"):
        raise ZooError(
            f"recipe key auto_augment: {recipe.auto_augment} is for images in colour; nda is for event frames"
        )


def one_hot(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """Returns targets [B, classes] of classes [B], a part `smoothing` of each spread over all."""
    return F.one_hot(y, classes).float() * (1 - smoothing) + smoothing / classes


def forward(network: nn.Module, x: Tensor, amp: torch.dtype | None) -> Tensor:
    """Returns logits of every time step, [T, B, classes], of a network or one that is wrapped for several processes."""
    with torch.autocast(x.device.type, dtype=amp, enabled=amp is not None):
        return network(x, per_step=True)


def loss_of(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """Returns the cross-entropy of the mean logits, or TET (Deng et al. 2022, arXiv 2202.11946, eq. 12), of logits
    [T, B, classes] and targets [B, classes]."""
    if recipe.loss == "ce":
        return F.cross_entropy(logits.mean(0), target)
    per_step = F.cross_entropy(logits.flatten(0, 1), target.repeat(len(logits), 1))
    return (1 - recipe.tet_lambda) * per_step + recipe.tet_lambda * (logits - 1).square().mean()


@contextlib.contextmanager
def firing_rates(model: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collects the mean spikes per neuron and time step of every layer of neurons, [] each, in the forwards inside.

    In a residual network every stage has as many dense operations as the one before, so that the mean of these rates
    is close to the share of synaptic operations that spikes cause.
    """
    rates: list[Tensor] = []
    neurons = [module for module in model.modules() if isinstance(module, SpikingNeuron)] if model else []
    hooks = [n.register_forward_hook(lambda _, __, spikes: rates.append(spikes.float().mean())) for n in neurons]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()


def _line(row: dict[str, Any], epochs: int) -> str:
    """Returns a row of summary.csv for people."""
    text = f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, training {row['train_top1']:.1f} %"
    if "val_top1" in row:
        text += f", validation {row['val_top1']:.1f} %, {row['val_spikes_per_image']:,.0f} spikes per image"
    return text


def _data_cfg(data: DataSet) -> dict[str, Any]:
    """Returns what a checkpoint remembers of its data."""
    about = {"mean": data.mean, "std": data.std, "label_names": data.classes, "num_classes": len(data.classes)}
    if data.timesteps is None:
        return about | folder_cfg(data.size)
    return about | {"input_size": data.input_size}


def _round(model: nn.Module, dtype: torch.dtype) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            rounded = value.to(dtype)
            if torch.isinf(rounded).any():
                raise ZooError(f"{name} is too large for {dtype}: go on with --resume --weights fp32")
            value.copy_(rounded)


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        hint = "pip install -e '.[tensorboard]' in the checkout, or drop --tensorboard"
        raise ZooError(f"tensorboard is not installed: {hint}") from None
    return SummaryWriter(out)


def run(recipe: Recipe) -> None:
    """Trains what a command line says."""
    train(recipe)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_train(argv))


if __name__ == "__main__":
    run_command(main)
