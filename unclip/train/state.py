"""Checkpoints of a run: written whole, checked when read, the newest good one wins."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import atomic, sync_folder, write_bytes, writing
from unclip.train.optim import EMA
from unclip.weights.checkpoint import read_tensors

KEEP = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"


@dataclass
class State:
    """Everything that a step changes. (Random numbers and the data's position are functions of the step.)"""

    net: nn.Module
    ema: EMA
    optimiser: torch.optim.Optimizer
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        moments = self.optimiser.state_dict()["state"]
        tensors = {
            **{f"net.{k}": v for k, v in self.net.state_dict().items()},
            **{f"ema.{k}": v for k, v in self.ema.net.state_dict().items()},
            **{f"moment.{i}.{k}": v for i, entry in moments.items() for k, v in entry.items()},
        }
        once = {v.data_ptr() or k: k for k, v in reversed(tensors.items())}  # what is frozen, networks may share
        return {k: tensors[k] for k in once.values()}

    def save(self, folder: Path, recipe: dict) -> Path:
        """Write FOLDER/step-N: state, then manifest, in a temporary folder that is renamed last; older ones go."""
        final, work = folder / f"step-{self.step:08d}", folder / f".step-{self.step:08d}.{os.getpid()}.tmp"
        with writing(folder):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            try:
                with atomic(work / STATE) as path:
                    save_file({k: v.contiguous() for k, v in self.tensors().items()}, path)
                manifest = {"step": self.step, "sha256": digest(work / STATE), "recipe": recipe}
                write_bytes(work / MANIFEST, json.dumps(manifest).encode())
                shutil.rmtree(final, ignore_errors=True)
                os.replace(work, final)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            sync_folder(folder)
        for old in checkpoints(folder)[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def restore(self, checkpoint: Path, device: torch.device) -> None:
        tensors, _ = read_tensors(checkpoint / STATE, device)

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for net, prefix in ((self.net, "net."), (self.ema.net, "ema.")):
            net.load_state_dict(net.state_dict() | part(prefix))  # what is shared was written, and is read, once
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("moment.").items():
            index, name = key.split(".")
            like = parameters[int(index)]
            if value.shape == like.shape:  # fused AdamW pairs memory, not indices: take the parameter's layout
                value = torch.empty_like(like, memory_format=torch.preserve_format).copy_(value)
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.step = json.loads((checkpoint / MANIFEST).read_text())["step"]


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def flat(settings: dict, path: str = "") -> dict[str, object]:
    """{"train": {"lr": 1}} → {"train.lr": 1}"""
    out: dict[str, object] = {}
    for name, value in settings.items():
        out |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return out


def newest_good(folder: Path, recipe: dict, warn: Callable[[str], object]) -> Path | None:
    """The newest checkpoint whose manifest and checksum hold; `warn(line)` is told of each that is passed over.

    Raises UnclipError when it was made under other settings.
    """
    for checkpoint in checkpoints(folder):
        try:
            manifest = json.loads((checkpoint / MANIFEST).read_text())
            good = manifest["sha256"] == digest(checkpoint / STATE)
        except (OSError, ValueError, KeyError):
            good = False
        if not good:
            warn(f"{checkpoint} is damaged and is passed over")
            continue
        was, now = flat(manifest["recipe"]), flat(recipe)  # settings that came into being since then are not in `was`
        other = [f"{k} was {v!r}, now is {now.get(k)!r}" for k, v in was.items() if v != now.get(k)]
        if other:
            raise UnclipError(f"{str(folder)!r} is a run of other settings: {'; '.join(other)}; choose another --out")
        return checkpoint
    return None
