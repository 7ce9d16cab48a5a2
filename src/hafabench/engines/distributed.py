"""The processes of one training: one by itself, or several started by torchrun.

`torchrun` sets ``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK``; without them a training is one process. GPUs talk through
NCCL, CPUs through gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from hafabench.errors import Problem, UserError


@dataclass(frozen=True)
class World:
    """This process among those of the training.

    Attributes:
        rank: number of this process; 0 writes files and speaks.
        local_rank: its number on this machine, which is its GPU.
        size: number of processes.
        device: where it computes.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and the progress."""
        return self.rank == 0

    def share_of(self, batch_size: int) -> int:
        """Images of a batch of ``batch_size`` that this process takes.

        Raises:
            UserError: where the processes cannot share the batch equally.
        """
        if batch_size % self.size:
            message = f"{batch_size} images cannot be shared equally by {self.size} processes"
            raise UserError(Problem("recipe", "batch_size", message))
        return batch_size // self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` with its gradients averaged over the processes; the model itself where there is one process."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def mean(self, *values: float) -> list[float]:
        """Each value averaged over the processes, in one exchange; every process gets the same answer."""
        if self.size == 1:
            return list(values)
        exchanged = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(exchanged)
        return (exchanged / self.size).tolist()

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started (or be alone), and leave them at the end.

    Raises:
        UserError: for an incomplete torchrun environment, or more processes on a machine than it has GPUs.
    """
    rank, local_rank, size = (_environment(name, alone) for name, alone in _TORCHRUN.items())
    device = _device(local_rank)
    world = World(rank, local_rank, size, device)
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield world
    finally:
        dist.destroy_process_group()


_TORCHRUN = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}


def _environment(name: str, alone: int) -> int:
    if "WORLD_SIZE" not in os.environ:
        return alone
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise UserError(Problem("environment", name, f"expected the number that torchrun sets, found {value!r}"))
    return int(value)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if local_rank >= found:
        message = f"process {local_rank} of this machine has no GPU: {found} visible; start at most {found}"
        raise UserError(Problem("environment", "LOCAL_RANK", message))
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
