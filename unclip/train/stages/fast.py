"""Few-step students of the decoder and the upsampler: their teacher's walk in a few calls, guidance within."""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unclip.data.images import Batch
from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.distill import shortcut
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import CFG, Clip
from unclip.diffusion.levels import Levels, mix, strides
from unclip.diffusion.samplers import ddim, walk
from unclip.errors import UnclipError
from unclip.nn.adapter import adapt, learnt, twin
from unclip.pictures import grid
from unclip.train.stages.decoder import DecoderRecipe, DecoderStage
from unclip.train.stages.diffusion import DiffusionStage, noise
from unclip.train.stages.upsampler import UpsamplerRecipe, UpsamplerStage
from unclip.weights import hub
from unclip.weights.adapter import Adapter, fingerprint
from unclip.weights.checkpoint import WEIGHTS, load_module, save_module


@dataclass(frozen=True)
class Lesson:
    """How a student learns: by `consistency`, or in rounds of `progressive` distillation; for how many `calls`.

    steps: of the teacher's walk; calls times a power of two. guidance: the teacher's, which the student takes over.
    """

    method: Literal["consistency", "progressive"] = "consistency"
    calls: int = 4
    steps: int = 32
    guidance: float = 2.0

    def __post_init__(self) -> None:
        if self.calls < 1 or self.steps < 2 * self.calls or math.log2(self.steps / self.calls) % 1:
            raise UnclipError(f"lesson.steps is {self.steps}; it must be 2, 4, 8 … times lesson.calls, {self.calls}")

    @property
    def rounds(self) -> int:
        """Of progressive distillation, each of which halves the calls."""
        return round(math.log2(self.steps / self.calls))


@dataclass(frozen=True)
class DecoderFastRecipe(DecoderRecipe):
    lesson: Lesson = field(default_factory=Lesson)

    def stage(self, data: Path, model: Path, device: torch.device) -> "DecoderFastStage":
        return DecoderFastStage(self, data, model, device)


@dataclass(frozen=True)
class UpsamplerFastRecipe(UpsamplerRecipe):
    lesson: Lesson = field(default_factory=lambda: Lesson(calls=2, steps=16, guidance=1.0))

    def stage(self, data: Path, model: Path, device: torch.device) -> "UpsamplerFastStage":
        return UpsamplerFastStage(self, data, model, device)


class Pair(nn.Module):
    """What a checkpoint must hold: the student, and the teacher, which in progressive distillation changes too."""

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.student, self.teacher = student, teacher.requires_grad_(False).eval()


class FastStage(DiffusionStage):
    """Distils the network of an earlier stage of the same run. Subclasses say how it is given its conditions."""

    net: Any  # a Pair
    lesson: Lesson
    teacher: str  # its part of the weights
    round = 0

    @property
    def learner(self) -> nn.Module:
        return self.net.student

    def enrol(self, lesson: Lesson, folder: Path) -> None:
        """Make the trained network in `folder` the teacher; the student is a copy of it, or it with an adapter."""
        if not folder.is_dir():
            raise UnclipError(f"{str(folder)!r} is not there: a student needs a teacher; train {folder.name} first")
        teacher, config = load_module(folder, type(self.recipe.model), type(self.net))
        if config != self.recipe.model:
            raise UnclipError(f"{str(folder)!r} was trained with other settings of the model than {self.recipe.name!r}")
        self.teacher, self.lesson = folder.name, lesson
        self.levels = self.process.levels().spaced(strides(self.process.T, lesson.steps))
        self.net.load_state_dict(teacher.state_dict())
        if self.recipe.lora:
            adapt(self.net, self.recipe.lora)
        self.net = Pair(self.net, twin(self.net))

    def seen(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, Any]:
        """x0 [B, ...] and what goes with it."""
        raise TypeError(f"{type(self).__name__} defines no conditions")

    def denoise(self, net: Any, seen: Any, guidance: float = 1.0) -> Denoise:
        """The network as a denoiser with its conditions bound."""
        raise TypeError(f"{type(self).__name__} defines no denoiser")

    def batch(self, step: int, share: slice = slice(None)) -> Batch:
        if self.lesson.method == "progressive":
            before, self.round = ((k * self.lesson.rounds) // self.recipe.train.steps for k in (step - 1, step))
            if step and before != self.round:  # who was taught now teaches
                self.net.teacher.load_state_dict(self.net.student.state_dict())
        return super().batch(step, share)

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        x0, seen = self.seen(batch, g)
        at, mid, to = self.path(len(x0), g)
        levels = at.like(x0)
        x = mix((levels.alpha, x0), (levels.sigma, noise(tuple(x0.shape), g, self.device)))
        student = self.denoise(self.net.student, seen)
        with torch.no_grad():
            teacher = self.denoise(self.net.teacher, seen, 1.0 if self.round else self.lesson.guidance)
            second = student if self.lesson.method == "consistency" else teacher
            target = shortcut(Clip(teacher), Clip(second), x, at, mid, to)
        error = (student(x, at).x0 - target).square().flatten(1).mean(1)
        return mix((self.process.weight()(at), error)).mean()

    def path(self, n: int, g: torch.Generator) -> tuple[Levels, Levels, Levels]:
        """For each of n pictures where it is, the level between, and where the student is to jump to."""
        if self.lesson.method == "progressive":
            stride = 2 << self.round
            i = stride * torch.randint(1, self.lesson.steps // stride + 1, (n,), generator=g)
            return self.levels[i], self.levels[i - stride // 2], self.levels[i - stride]
        length = self.lesson.steps // self.lesson.calls
        i = torch.randint(1, self.lesson.steps + 1, (n,), generator=g)
        return self.levels[i], self.levels[i - 1], self.levels[(i - 1) // length * length]

    @torch.no_grad()
    def compare(self, net: Any, x0: Tensor, seen: Any) -> tuple[Image.Image, dict[str, float]]:
        """Rows: the teacher's walk, and the student's from the same noise; how far it is from it, and how far the
        teacher's own walk in as few steps would be."""
        full, few = self.lesson.steps, self.lesson.calls
        teacher = Clip(self.denoise(net.teacher, seen, 1.0 if self.round else self.lesson.guidance))
        walks = {"teacher": (teacher, full), "mse": (Clip(self.denoise(net.student, seen)), few),
                 "mse_teacher": (teacher, few)}  # fmt: skip
        drawn = {name: self.walk(denoise, x0, steps) for name, (denoise, steps) in walks.items()}
        rows = [part for pair in zip(drawn["teacher"].split(8), drawn["mse"].split(8), strict=True) for part in pair]
        errors = {name: (drawn[name] - drawn["teacher"]).square().mean().item() for name in ("mse", "mse_teacher")}
        return grid(torch.cat(rows), columns=min(8, len(x0))), errors

    def walk(self, denoise: Denoise, x0: Tensor, steps: int) -> Tensor:
        x, levels = Draw(range(len(x0)), "preview").like(x0), self.process.levels()
        for x, _ in walk(denoise, x, levels.spaced(strides(self.process.T, steps)).down(), ddim()):
            pass
        return x

    def begin(self, folder: Path) -> None:
        if not self.recipe.lora:
            return super().begin(folder)
        adapter = Adapter.load(folder / self.recipe.name / WEIGHTS)
        if (rank := adapter.config.rank) != self.recipe.lora:
            raise UnclipError(f"lora is {self.recipe.lora}, but adapter {adapter.name!r} has rank {rank}")
        adapter.check(self.net.student, fingerprint(self.net.student))
        for name, parameter in learnt(self.net.student).items():
            parameter.data.copy_(adapter.tensors[name])

    def adapt(self, trained: bool) -> None:
        """`enrol` has done it."""

    def export(self, net: Any, model: Path, notes: dict[str, str]) -> None:
        if not self.recipe.lora:
            return super().export(net.student, model, notes)
        adapter = Adapter.of(net.student, self.teacher, self.recipe.lora)
        save_module(model / self.recipe.name, adapter.config, adapter.tensors, torch.float16, notes)
        hub.write_index(model, model.parent.name)

    def export_adapter(self, net: Any, out: Path, notes: dict[str, str]) -> None:
        """A student that is an adapter is kept with the weights, as `export` does."""


class DecoderFastStage(FastStage, DecoderStage):
    recipe: DecoderFastRecipe
    net: Any

    def __init__(self, recipe: DecoderFastRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, model, device)
        self.enrol(recipe.lesson, model / "decoder")

    def seen(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, Any]:
        ids, z_i = self.encoders.tokens(batch.captions), self.encoders.z_i(batch, self.corpus)
        silent = torch.rand(len(ids), generator=g) < self.recipe.drop_text
        return batch.pictures, (z_i, ids.where(~silent[:, None].to(ids.device), 0))

    def denoise(self, net: Any, seen: Any, guidance: float = 1.0) -> Denoise:
        z_i, ids = seen
        branches = 1 if guidance == 1 else 2
        absent = torch.arange(branches * len(ids), device=self.device) < (branches - 1) * len(ids)
        given = net.condition(z_i.repeat(branches, 1), ids.repeat(branches, 1), absent, absent)
        denoise = self.process.denoiser(net)
        return partial(CFG(denoise, guidance) if branches == 2 else denoise, given=given)

    @torch.no_grad()
    def preview(self, net: Any) -> tuple[Image.Image, dict[str, float]]:
        z_i, ids = self.encoders.clip.encode_image(self.real), self.encoders.tokens(self.lines)
        return self.compare(net, self.real, (z_i, ids))


class UpsamplerFastStage(FastStage, UpsamplerStage):
    recipe: UpsamplerFastRecipe
    net: Any

    def __init__(self, recipe: UpsamplerFastRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, device)
        self.enrol(recipe.lesson, model / recipe.name.removesuffix("_fast"))

    def seen(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, Any]:
        return self.target(batch, g)

    def denoise(self, net: Any, seen: Any, guidance: float = 1.0) -> Denoise:
        return partial(self.process.denoiser(net), given=seen)

    @torch.no_grad()
    def preview(self, net: Any) -> tuple[Image.Image, dict[str, float]]:
        return self.compare(net, self.real, self.enlarge(F.avg_pool2d(self.real, self.factor)))
