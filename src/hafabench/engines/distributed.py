"""The processes of one training: a single process, or several that torchrun started.

torchrun sets ``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK``; without them a training is a single process. GPUs exchange
data through NCCL, CPUs through gloo.
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
    """This process among the processes of the training.

    Attributes:
        rank: Number of this process; process 0 writes files and messages.
        local_rank: Number of this process on its machine, which is also the number of its GPU.
        size: Number of processes.
        device: The device that this process computes on.
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
        """Return the number of images of a batch that this process takes.

        Raises:
            UserError: If the batch cannot be divided equally among the processes.
        """
        if batch_size % self.size:
            message = f"{batch_size} images cannot be shared equally by {self.size} processes"
            raise UserError(Problem("recipe", "batch_size", message))
        return batch_size // self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap ``model`` so that its gradients are averaged over the processes; one process gets the model itself."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def mean(self, *values: float) -> list[float]:
        """Average each value over the processes, in one exchange; every process gets the same result."""
        if self.size == 1:
            return list(values)
        exchanged = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(exchanged)
        return (exchanged / self.size).tolist()

    def share(self, value: str) -> str:
        """Return the value of the first process; every process has to call this method."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def wait(self) -> None:
        """Return when every process has called this method."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the process group that torchrun started, if any, and leave it at the end.

    Raises:
        UserError: If the environment of torchrun is incomplete, or a machine has more processes than GPUs.
    """
    rank, local_rank, size = (_environment(name, default) for name, default in _TORCHRUN.items())
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


# Variables that torchrun sets, with their values for a single process.
_TORCHRUN = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}


def _environment(name: str, default: int) -> int:
    if "WORLD_SIZE" not in os.environ:
        return default
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise UserError(Problem("environment", name, f"expected the number that torchrun sets, found {value!r}"))
    return int(value)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        message = f"process {local_rank} of this machine has no GPU: {count} visible; start at most {count}"
        raise UserError(Problem("environment", "LOCAL_RANK", message))
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
