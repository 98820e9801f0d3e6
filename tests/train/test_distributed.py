"""Several processes: the gradient is the whole batch's, and a run that is broken off goes on as if it had not been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unclip.errors import UnclipError
from unclip.train.distributed import Team
from unclip.train.state import checkpoints

CPU = torch.device("cpu")


def member(rank: int, port: str, out: str) -> None:
    """One process of two: a step on its share, its gradient left in OUT/RANK."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.manual_seed(rank)  # the first process's weights count
    net = nn.Linear(3, 2)
    team = Team.assemble(CPU)

    def loss(x, g):
        y = net(x) if rank == 0 else x @ net.weight.T + net.bias.detach()  # one share leaves the bias unused
        return y.square().mean()

    stage = SimpleNamespace(net=net, loss=loss)
    objective = team.objective(stage)
    for _ in range(2):  # a parameter left waiting shows in the step after
        net.zero_grad()
        objective(rows()[team.share(6)], None).backward()
    torch.save([net.weight.detach(), net.weight.grad, team.any(rank == 1, CPU), team.any(False, CPU)], f"{out}/{rank}")
    team.wait()
    os._exit(0)  # gloo's threads, should one still be ending, can abort a process that takes the long way out


def rows() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(5))


def test_gradient_is_that_of_the_whole_batch(tmp_path, unused_port):
    torch.multiprocessing.spawn(member, (unused_port, str(tmp_path)), nprocs=2)
    (weight, first, some, none), (other, second, *flags) = (torch.load(tmp_path / str(r)) for r in range(2))
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    net(rows()).square().mean().backward()
    assert torch.equal(weight, net.weight) and torch.equal(other, weight)
    assert torch.equal(first, second) and torch.allclose(first, net.weight.grad, atol=1e-6)
    assert [some, none] == flags == [True, False]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from unclip.train import loop
from unclip.train.optim import EMA

class Broken(EMA):
    def update(self, net, step):
        if step == int(sys.argv[2]):
            raise RuntimeError("power cut")
        super().update(net, step)

loop.EMA = Broken
loop.train(conftest.recipes.__wrapped__()["clip"], Path({data!r}), Path(sys.argv[1]))
"""


def torchrun(script: Path, out: Path, fails_at: int) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    return subprocess.run([*command, script, out, str(fails_at)], env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


def test_stopping_and_going_on_is_exact_in_two_processes(data, tmp_path):
    script = tmp_path / "go.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), data=str(data)))
    assert torchrun(script, tmp_path / "whole", -1) == 0
    assert torchrun(script, tmp_path / "broken", 4) == 1
    assert checkpoints(tmp_path / "broken" / "clip")[0].name == "step-00000003"
    assert torchrun(script, tmp_path / "broken", -1) == 0
    ends = [load_file(checkpoints(tmp_path / run / "clip")[0] / "state.safetensors") for run in ("whole", "broken")]
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    lines = [json.loads(line) for line in (tmp_path / "whole" / "clip" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]  # one process speaks


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UnclipError, match="train.batch is 7; it must be a multiple of the 2 processes"):
        Team(0, 2).share(7)
    assert Team().share(7) == slice(None)


@pytest.fixture
def unused_port() -> str:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])
