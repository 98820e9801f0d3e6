"""One run in several processes: `torchrun --nproc-per-node N -m unclip.cli train …` shares each batch among them."""

import atexit
import gc
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unclip.data.images import Batch
from unclip.errors import UnclipError
from unclip.train.recipe import Stage


@dataclass(frozen=True)
class Team:
    """The processes of a run, started by torchrun or by anything that sets its variables; one alone otherwise."""

    rank: int = 0
    size: int = 1

    @classmethod
    def assemble(cls, device: torch.device) -> "Team":
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's rows of a batch. Raises UnclipError when it does not divide."""
        if batch % self.size:
            raise UnclipError(f"train.batch is {batch}; it must be a multiple of the {self.size} processes")
        return slice(self.rank, None, self.size) if self.size > 1 else slice(None)

    def stream(self, name: str) -> str:
        """The name of a random stream, another one in each process."""
        return name if self.size == 1 else f"{name} of process {self.rank}"

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up in any process; all get the same answer."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def objective(self, stage: Stage) -> nn.Module:
        """(batch, g) → the stage's loss; its backward pass leaves the same mean gradient in every process."""
        objective = Objective(stage)
        if self.size == 1:
            return objective
        # A share of a batch may leave a parameter unused, such as the null of a condition that no row has dropped.
        return DistributedDataParallel(objective, gradient_as_bucket_view=True, find_unused_parameters=True)


def leave() -> None:
    """Take the group apart while its threads can still be joined: left to the end of the interpreter, it aborts at
    times. What shares gradients holds on to the group, perhaps in a cycle, so that goes first."""
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


class Objective(nn.Module):
    """A stage's loss as a module, which is what DistributedDataParallel can wrap."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.net, self.stage = stage.net, stage

    def forward(self, batch: Batch, g: torch.Generator) -> Tensor:
        return self.stage.loss(batch, g)
