"""What an ancestor offers once it is trained, and how a category is drawn."""

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.weights.checkpoint import load_module

Parts = dict[str, tuple[type, type[nn.Module]]]  # a folder of a run's model → its configuration and network


class System(ABC):
    """A trained ancestor. What it cannot do stays None or False here; the report shows a dash.

    `parts` are set as attributes of their own names.
    """

    parts: ClassVar[Parts]
    title: ClassVar[str]
    models: ClassVar[str]  # what it models, as the paper writes it
    text: ClassVar[bool] = False  # draws what a caption says
    heeds: ClassVar[str] = "reads no captions: the prompt counts for nothing"  # without `text`, as is said to a prompt
    draws: ClassVar[bool] = True
    calls: int = 1  # network calls that a picture takes
    size: int = 64

    def __init__(self, **parts: nn.Module):
        for name, net in parts.items():
            setattr(self, name, net)

    @classmethod
    def load(cls, model: Path, device: torch.device | str = "cpu") -> Self:
        """From a run's model folder. Raises UnclipError when a part of it is not there."""
        return cls(**{name: load_part(model, name, *kinds).to(device) for name, kinds in cls.parts.items()})

    @property
    def whole(self) -> bool:
        """Whether every part is there: a stage of several looks at its own part alone."""
        return all(hasattr(self, name) for name in self.parts)

    def nets(self) -> list[nn.Module]:
        return [getattr(self, name) for name in self.parts]

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """A picture for each seed, [N, 3, S, S] in [−1, 1]; captions count where `text` is true."""
        raise UnclipError(f"{self.title} draws nothing: it has no distribution to draw from; ask it to reconstruct")

    def reconstruct(self, pictures: Tensor) -> Tensor | None:
        """[N, 3, S, S] → what is left of them after the way through the code."""
        return None

    def redraw(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Pictures [N, 3, S, S] as the system tells them again, or completes them; where [N, 1, S, S]: 1 where they are
        known, for those that can be told which part that is. Raises UnclipError where it has no such way."""
        again = self.reconstruct(pictures)
        if again is None:
            raise UnclipError(f"{self.title} takes no pictures: it draws, and has no way back to what drew them")
        return again

    def bits(self, pictures: Tensor) -> Tensor | None:
        """Upper bound on −log2 p(x) per dimension, [N], where there is a likelihood."""
        return None

    def features(self, pictures: Tensor) -> Tensor | None:
        """[N, D], for a linear probe."""
        return None

    def numbers(self, pictures: Tensor) -> dict[str, float]:
        """What else its paper counts, of pictures that it has not seen."""
        return {}


def load_part(model: Path, name: str, config: type, build: type[nn.Module]) -> Any:
    """The network `name` of a run's model folder, frozen. Raises UnclipError when it is not there."""
    if not (model / name).is_dir():
        raise UnclipError(f"{str(model)!r} holds no {name!r}; train it first: unclip lineage train")
    return load_module(model / name, config, build)[0]


def choose(logits: Tensor, draw: Draw, temperature: float = 1.0, top_k: int = 0) -> Tensor:
    """A category for each image, [B], from logits [B, K]; each from the image's own generator (Gumbel's trick).

    top_k > 0 keeps that many of the likeliest.
    """
    logits = logits.float().cpu() / max(temperature, 1e-6)
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    u = torch.stack([torch.rand(logits.shape[1], generator=g) for g in draw.generators])
    return (logits - (-u.clamp(1e-12, 1 - 1e-7).log()).log()).argmax(1)
