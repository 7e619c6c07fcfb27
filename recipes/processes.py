"""Several processes on one training run, as torchrun starts them."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def start_processes(device: str) -> tuple[int, int, torch.device]:
    """Join the group that torchrun made, if it did: (rank, world size, device of this process)."""
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_RANK", 0))
    here = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(here)
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
        return dist.get_rank(), dist.get_world_size(), here
    return 0, 1, here


def stop_processes() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes; the tensor itself when there is one."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
