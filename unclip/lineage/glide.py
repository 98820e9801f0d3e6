"""GLIDE (Nichol et al. 2021, 2112.10741): diffusion told by a caption.

DALL·E 2's decoder is its network with z_i added, so here GLIDE is that decoder without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import CFG, Clip, Guide, resembling
from unclip.diffusion.levels import mix, spread
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import ddpm, walk
from unclip.errors import UnclipError
from unclip.lineage.reader import reader
from unclip.lineage.system import System
from unclip.models.decoder import Condition, Decoder, DecoderConfig
from unclip.models.noised_clip import NoisedImageConfig, NoisedImageEncoder
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig

PROCESS = Process(predicts="x0", variance="learned", cap=4.0, floor=0.0005)


@dataclass(frozen=True)
class GLIDEConfig:
    """`decoder` with image_tokens = 1, which is the learned null; its U-Net sees 7 channels: x_t, what is known of the
    picture, and where."""

    drop: float = 0.2  # how often the caption is left out (section 2.3)
    known: float = 0.25  # how often a part of the picture is told (section 2.4, "image inpainting")
    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(
        context=24, image_tokens=1, text=TransformerConfig(96, 1, 3),
        unet=UNetConfig(7, 6, (48, 64, 96), 1, (1, 2), 16, context=96, patch=4), diffusion=PROCESS,
    ))  # fmt: skip

    @property
    def size(self) -> int:
        return self.decoder.size


class Given(NamedTuple):
    caption: Condition
    known: Tensor  # [B, 4, S, S]: the picture where it is known and 0 elsewhere, and 1 where it is known


class GLIDE(nn.Module):
    def __init__(self, config: GLIDEConfig):
        super().__init__()
        self.config, self.decoder = config, Decoder(config.decoder)

    def condition(self, ids: Tensor, absent: Tensor, known: Tensor | None = None) -> Given:
        """ids [B, L], absent [B]: true where the caption is left out, known [B, 4, S, S]."""
        no_z = ids.new_zeros(len(ids), self.config.decoder.embed, dtype=torch.float32)
        caption = self.decoder.condition(no_z, ids, torch.ones_like(absent), absent)
        side = (len(ids), 4, self.config.size, self.config.size)
        return Given(caption, torch.zeros(side, device=ids.device) if known is None else known)

    def forward(self, x: Tensor, t: Tensor, given: Given) -> Tensor:
        return self.decoder(torch.cat([x, given.known.to(x)], dim=1), t, given.caption)

    def loss(self, x: Tensor, ids: Tensor, g: torch.Generator) -> Tensor:
        """L_hybrid; now and then without the caption, now and then with a part of the picture told."""
        process, n = self.config.decoder.diffusion, len(x)
        levels = process.levels()
        i = torch.randint(1, process.T + 1, (n,), generator=g)
        noise = torch.randn(x.shape, generator=g).to(x)
        absent = (torch.rand(n, generator=g) < self.config.drop).to(x.device)
        where = (holes(n, x.shape[-1], g) * (torch.rand(n, 1, 1, 1, generator=g) < self.config.known)).to(x)
        given = self.condition(ids, absent, torch.cat([x * where, where], dim=1))
        return process.denoiser(self).loss(x, levels[i], levels[i - 1], noise, given=given).mean()


def holes(n: int, size: int, g: torch.Generator) -> Tensor:
    """[n, 1, size, size]: 1 outside a random box, the hole to be filled."""
    a, b = torch.rand(2, n, 2, generator=g).sort(0).values * size
    line = torch.arange(size)
    inside = (line >= a[..., None]) & (line < b[..., None])
    return 1 - (inside[:, 0, :, None] & inside[:, 1, None])[:, None].float()


@dataclass(frozen=True)
class NoisedCLIPConfig:
    diffusion: Process = PROCESS
    image: NoisedImageConfig = field(
        default_factory=lambda: NoisedImageConfig(256, 64, 8, transformer=TransformerConfig(192, 4, 6))
    )

    @property
    def size(self) -> int:
        return self.image.image_size


class NoisedCLIP(nn.Module):
    """f(x_t) in the space of a frozen CLIP's captions (section 2.4, "CLIP guidance")."""

    def __init__(self, config: NoisedCLIPConfig):
        super().__init__()
        self.config, self.image = config, NoisedImageEncoder(config.image)

    def loss(self, x: Tensor, z_t: Tensor, g: torch.Generator) -> Tensor:
        """Which caption of the batch is whose: cross-entropy both ways, at every level of noise."""
        process = self.config.diffusion
        at = process.levels()[torch.randint(1, process.T + 1, (len(x),), generator=g)].like(x)
        noised = mix((at.alpha, x), (at.sigma, torch.randn(x.shape, generator=g).to(x)))
        logits = self.image(noised, at.t) @ z_t.T / 0.07
        own = torch.arange(len(x), device=x.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class GLIDESystem(System):
    title, models, text = "GLIDE", "p(x | caption)", True
    parts: ClassVar = {"glide": (GLIDEConfig, GLIDE), "glide_clip": (NoisedCLIPConfig, NoisedCLIP)}
    glide: GLIDE
    glide_clip: NoisedCLIP
    calls = 27  # the schedule of its 64 px model (section 3)
    guidance, clip_guidance = 3.0, 0.0  # people preferred the first (section 3.1), so CLIP's is off unless asked for

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = next(iter(parts.values())).config.size  # type: ignore[union-attr,assignment]

    @torch.inference_mode(False)  # guidance by CLIP takes a gradient
    @torch.no_grad()
    def sample(self, captions: Sequence[str], seeds: Sequence[int], known: Tensor | None = None) -> Tensor:
        """known [N, 4, S, S]: see `Given`."""
        device = self.glide.decoder.padding.device
        read, n = reader(device), len(seeds)
        ids = read.ids([*[""] * n, *captions], self.glide.config.decoder.context)
        both = None if known is None else known.repeat(2, 1, 1, 1)
        given = self.glide.condition(ids, torch.arange(2 * n, device=device) < n, both)
        process, draw = self.glide.config.decoder.diffusion, Draw(seeds, "glide")
        denoise = Clip(CFG(process.denoiser(self.glide), self.guidance))
        if self.clip_guidance:
            denoise = Guide(denoise, resembling(self.glide_clip.image, read.z_t(captions)), self.clip_guidance)
        x = draw((3, self.size, self.size)).to(device)
        steps = process.levels().spaced(spread(process.T, min(self.calls, process.T)))
        for x, _ in walk(denoise, x, steps.down(), ddpm, draw.like, given=given):
            pass
        return x

    def inpaint(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Pictures [N, 3, S, S] redrawn where `where` [N, 1, S, S] is 0; the rest stays as it is."""
        drawn = self.sample(captions, seeds, torch.cat([pictures * where, where], dim=1))
        return torch.where(where > 0, pictures, drawn)

    def redraw(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        if where.min() > 0:
            raise UnclipError("nothing of the picture is transparent: GLIDE fills what is; cut a hole into it")
        return self.inpaint(pictures, where, captions, seeds)
