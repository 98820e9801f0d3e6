"""The decoder P(x | z_i, y): GLIDE's text-conditional U-Net, given z_i as well (DALL·E 2, section 2.1)."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unclip.diffusion.process import Process
from unclip.nn.attention import KV, causal
from unclip.nn.transformer import Transformer, TransformerConfig
from unclip.nn.unet import UNet, UNetConfig


@dataclass(frozen=True)
class DecoderConfig:
    size: int = 64
    embed: int = 256  # width of z_i
    vocab: int = 8192
    context: int = 32
    image_tokens: int = 4  # context tokens made of z_i
    text: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=192, depth=4, heads=3))
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(out_channels=6, context=192, patch=4))
    diffusion: Process = field(default_factory=lambda: Process(predicts="x0", variance="learned", cap=20.0))


class Condition(NamedTuple):
    """What z_i and the caption contribute: constant while x is denoised, so computed once."""

    emb: Tensor
    keys: list[KV]
    layout: Tensor | None = None
    seen: Tensor | None = None  # [B, tokens], false where the context is padding


class Decoder(nn.Module):
    """z_i is added to the time embedding and becomes four tokens joined to the encoded caption.

    With a `layout` in the U-Net, z_i also makes that map: scale, shift and tokens know no place.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        width, emb = config.text.width, config.unet.emb
        self.scale = config.embed**0.5
        self.tokens = nn.Embedding(config.vocab, width)
        self.position = nn.Parameter(torch.randn(1, config.context, width) * 0.02)
        self.padding = nn.Parameter(torch.randn(width) * 0.02)  # stands where a caption has no token (GLIDE)
        self.text = Transformer(config.text)
        self.z_emb, self.text_emb = nn.Linear(config.embed, emb), nn.Linear(width, emb)
        self.z_tokens = nn.Linear(config.embed, config.image_tokens * width)
        self.null_z = nn.Parameter(torch.randn(config.embed) * 0.02)
        self.unet, self.grid = UNet(config.unet), config.size // config.unet.patch
        self.layout = nn.Linear(config.embed, config.unet.layout * self.grid**2) if config.unet.layout else None
        nn.init.normal_(self.tokens.weight, std=0.02)

    def condition(self, z_i: Tensor, tokens: Tensor, drop_z: Tensor, drop_text: Tensor) -> Condition:
        """unit z_i [B, embed], tokens [B, L ≤ context] zero padded; drop_z, drop_text [B]: true where z_i is the
        learned null, and where the caption is empty."""
        z = torch.where(drop_z[:, None], self.null_z, self.scale * z_i)
        seen = (tokens != 0) & ~drop_text[:, None]
        x = torch.where(seen[..., None], self.tokens(tokens), self.padding) + self.position[:, : tokens.shape[1]]
        text, _ = self.text(x, causal(x.shape[1], device=x.device))
        last = (seen.sum(dim=1) - 1).clamp(min=0)
        pooled = text[torch.arange(len(text), device=text.device), last]
        context = torch.cat([self.z_tokens(z).unflatten(1, (-1, text.shape[2])), text], dim=1)
        layout = self.layout(z).unflatten(1, (-1, self.grid, self.grid)) if self.layout is not None else None
        return Condition(self.z_emb(z) + self.text_emb(pooled), self.unet.keys(context), layout)

    def forward(self, x: Tensor, t: Tensor, given: Condition) -> Tensor:
        """x [B, 3, S, S], t [B] → [B, 6, S, S]: the estimate and the variance's place in its range."""
        return self.unet(x, t, given.emb, given.keys, given.layout).float()
