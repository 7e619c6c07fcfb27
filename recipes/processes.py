"""What a process computes on and with: its device, precision and memory, and the others that torchrun started."""

import contextlib
import ctypes
import datetime
import gc
import os
import signal
import sys

import torch
import torch.distributed as dist

from zoo.errors import ZooError, one_line
from zoo.provenance import cpu_line
from zoo.scaling import mean_over_processes

_LONGEST_VALIDATION = datetime.timedelta(hours=2)
"""For which the other processes wait while the first one validates; NCCL's own patience is ten minutes."""


def pick_device(name: str) -> torch.device:
    """Returns the device called "cpu", "cuda" or "auto" (cuda where there is one); of several GPUs, this process's.

    In a process that is given a GPU, float32 convolutions are that: TensorFloat-32 is off (`zoo.metrics.evaluation`).

    Raises:
        ZooError: cuda, and there is none, or none for this process.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ZooError("device is cuda, and PyTorch sees no GPU here: use --device cpu, or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= count:
        own = f"process {rank + 1} of this machine has no GPU of its own"
        raise ZooError(f"{own}: start at most {count} (NPROC={count})")
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda", rank)
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError as error:
        why = f"PyTorch cannot compute on this GPU ({one_line(error)})"
        raise ZooError(f"{why}: use another, a build of PyTorch for this one, or --device cpu") from error
    return device


def start_processes(device: str) -> tuple[int, int, torch.device]:
    """Joins the group that torchrun made, if it did, and returns (rank, world size, device of this process).

    Raises:
        ZooError: no such device, or no such group.
    """
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    here = pick_device(device)
    cuda = here.type == "cuda"
    if cuda:
        torch.cuda.set_device(here)
    if several:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's, which starts processes in its main thread
            end_with_parent()
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ["TORCHELASTIC_MAX_RESTARTS"] != "0":
            # Of all rounds, in which a new process would look up the address of one that is gone, and wait.
            share = "torchrun --max-restarts keeps one store for all its starts, which mixes them up"
            raise ZooError(f"{share}: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for it")
        try:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=_LONGEST_VALIDATION)
        except (ValueError, RuntimeError) as error:
            raise ZooError(f"cannot join the other processes: {one_line(error)}; torchrun starts them") from error
        return dist.get_rank(), dist.get_world_size(), here
    return 0, 1, here


def end_with_parent() -> None:
    """Has Linux kill this process when the one that started it is killed, as torchrun's: or it would train on beside
    those that a new torchrun starts, and keep the run directory locked."""
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def stop_processes(failed: bool = False) -> None:
    """Leaves the group; the networks that it served must be out of use.

    Args:
        failed: this process ends with an error, of which the others may know nothing. Then it stays in a group of
            GPUs: leaving waits for the others, who wait for it. torchrun stops them when this process has ended.
    """
    if dist.is_initialized() and not (failed and dist.get_backend() == "nccl"):
        # A DistributedDataParallel that outlives its group, as part of a reference cycle does until it is collected,
        # now and then aborts the process at its very end ("terminate called without an active exception").
        gc.collect()
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Returns when all processes have come here."""
    if dist.is_initialized():
        mean_over_processes(torch.zeros((), device="cuda" if dist.get_backend() == "nccl" else "cpu")).item()


def same_modules() -> dict[str, str]:
    """Returns variables with which a `python -m` that this process starts finds the modules that it found itself.

    By itself it would look into the working directory first, where a user may have a recipes/ or a zoo.py of their own.
    """
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)}


def keep_memory(keep: bool = True) -> None:
    """Makes glibc keep the memory of freed tensors for the next ones, in this process; not `keep`: as by itself.

    By itself it returns large blocks to the system, and each step of training on a CPU faults all their pages in again.
    """
    # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; 32 MiB is where glibc's own adjustment of the first one ends.
    mmap, trim = (1 << 30, (1 << 31) - 1) if keep else (1 << 25, 1 << 26)
    with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to tell it
        tell = ctypes.CDLL("libc.so.6").mallopt
        if tell(-3, mmap) or tell(-3, 1 << 25):  # before 2.35, it takes no more than 32 MiB
            tell(-1, trim)


def computes_in_bf16(device: torch.device) -> bool:
    """Returns whether the processor has bfloat16 arithmetic of its own; without it, bfloat16 is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not what oneDNN supports: with AVX-512 it emulates, and on ARM its convolutions have no fast backward pass.
    return torch.backends.mkldnn.is_available() and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def resolve_amp(amp: str, device: torch.device) -> str:
    """Returns what `amp` means on a device, without "auto": that is bf16 where it is the faster one, else off.

    Without AMX, as in virtual machines that hide it, Intel's processors compute in bfloat16 no faster than in float32:
    a step took 1.5 times as long.
    """
    if amp != "auto":
        return amp
    slow = device.type == "cpu" and "Intel" in cpu_line("model name") and not torch.cpu._is_amx_tile_supported()
    return "bf16" if computes_in_bf16(device) and not slow else "off"


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Returns the type that convolutions and linear layers compute in, None for float32."""
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[resolve_amp(amp, device)]


def amp_name(dtype: torch.dtype | None) -> str:
    """Returns the short name of a type: fp32, bf16 or fp16."""
    return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
