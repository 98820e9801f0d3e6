"""ADM (Dhariwal & Nichol 2021, 2105.05233): a better U-Net, and guidance by a classifier that sees the noise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Guide, classified
from unclip.diffusion.levels import mix
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import ddpm
from unclip.lineage.ddpm import Diffusion, DiffusionConfig
from unclip.lineage.pyramid import Down, PyramidConfig
from unclip.lineage.system import System
from unclip.nn.embed import TimeEmbedding


@dataclass(frozen=True)
class NoisedConfig:
    size: int = 32
    out: int = 16
    emb: int = 128
    pyramid: PyramidConfig = field(default_factory=lambda: PyramidConfig((48, 64, 96), 1, 2))
    diffusion: Process = field(default_factory=Process)


class Noised(nn.Module):
    """The downward half of a U-Net that reads noised pictures: x_t [B, 3, S, S], t [B] → [B, out]."""

    def __init__(self, config: NoisedConfig):
        super().__init__()
        self.config, width = config, config.pyramid.channels[-1]
        self.time = TimeEmbedding(config.emb // 2, config.emb)
        self.down = Down(config.pyramid, 3, width, config.emb)
        self.out = nn.Linear(width * (config.size // config.pyramid.factor) ** 2, config.out)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out(F.silu(self.down(x, F.silu(self.time(t)))).flatten(1)).float()

    def noised(self, x: Tensor, g: torch.Generator) -> Tensor:
        """What it says of pictures x at levels drawn from `g`."""
        process = self.config.diffusion
        at = process.levels()[torch.randint(1, process.T + 1, (len(x),), generator=g)].like(x)
        return self(mix((at.alpha, x), (at.sigma, torch.randn(x.shape, generator=g).to(x))), at.t)


@dataclass(frozen=True)
class ClassifierConfig:
    names: tuple[str, ...] = ()
    net: NoisedConfig = field(default_factory=NoisedConfig)

    @property
    def size(self) -> int:
        return self.net.size


class Classifier(nn.Module):
    """p(y | x_t) over `names` (section 4.1)."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config, self.net = config, Noised(config.net)

    def labels(self, lines: Sequence[str]) -> Tensor:
        """The number of the first name that stands in each line, −100 for none; [B]."""
        names = list(enumerate(self.config.names))
        return torch.tensor([next((i for i, name in names if name in line), -100) for line in lines])

    def loss(self, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        """Cross-entropy at every level of noise; pictures without a name teach nothing."""
        loss = F.cross_entropy(self.net.noised(x, g), y.to(x.device), ignore_index=-100, reduction="sum")
        return loss / (y >= 0).sum().clamp(min=1)


class ADMSystem(System):
    title, models = "ADM", "p(x) p(style | x)^s"
    heeds = "knows styles alone: of the prompt it heeds the style, if one is named"
    parts: ClassVar = {"adm": (DiffusionConfig, Diffusion), "adm_classifier": (ClassifierConfig, Classifier)}
    adm: Diffusion
    adm_classifier: Classifier
    calls = 25  # and as many of the classifier
    scale = 3.0

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = next(iter(parts.values())).config.size  # type: ignore[union-attr,assignment]

    @torch.inference_mode(False)  # guidance takes a gradient
    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """In the style that a caption names; in one drawn by its seed where it names none."""
        y = self.adm_classifier.labels(captions)
        y = torch.where(y < 0, torch.tensor(seeds) % max(1, len(self.adm_classifier.config.names)), y)
        log_prob = classified(self.adm_classifier.net, y.to(self.adm.unet.conv_in.weight.device))
        steps = min(self.calls, self.adm.config.diffusion.T)
        return self.adm.sample(Draw(seeds, "adm"), steps, ddpm, lambda inner: Guide(inner, log_prob, self.scale))

    def bits(self, pictures: Tensor) -> Tensor:
        return self.adm.bits(pictures, min(100, self.adm.config.diffusion.T))
