"""A decoder whose caption was encoded elsewhere: Karlo's, read by CLIP; Kandinsky's, read by XLM-R or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.process import Process
from unclip.models.decoder import Condition
from unclip.nn.unet import UNet, UNetConfig

Part = Literal["z_emb", "text_emb", "z_tokens", "text"]


@dataclass(frozen=True)
class EncodedDecoderConfig:
    size: int = 64  # of the picture, or of the latent that it is encoded as
    channels: int = 3
    embed: int = 768  # width of z_i
    pooled: int = 768  # width of what sums the caption up; 0: no caption is read
    text: int = 768  # width of the encoded caption; 0: no caption is read
    image_tokens: int = 4  # context tokens made of z_i
    normed: tuple[Part, ...] = ("text",)  # which maps end in a layer normalisation
    null: bool = True  # an absent z_i is learned; else the pipeline gives one
    hint: bool = False  # what is joined to x is made of a picture eight times as large (ControlNet)
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: Process = field(default_factory=lambda: Process(variance="learned"))


def led(channels: int) -> Sequence[nn.Module]:
    """Layers from a picture [B, 3, 8 h, 8 w] in [0, 1] to a map [B, channels, h, w], as ControlNet begins (Zhang et al.
    2302.05543, section 3.2)."""
    widths, halved = (3, 16, 16, 32, 32, 96, 96, 256, channels), (2, 4, 6)
    convs = [nn.Conv2d(a, b, 3, 1 + (i in halved), 1) for i, (a, b) in enumerate(pairwise(widths))]
    return [layer for conv in convs for layer in (conv, nn.SiLU())][:-1]


class EncodedDecoder(nn.Module):
    """z_i and the caption's sum are added to the time embedding; z_i's tokens and the caption's are the context."""

    def __init__(self, config: EncodedDecoderConfig):
        super().__init__()
        self.config = c = config
        emb, width = c.unet.emb, c.unet.context or 0
        self.z_emb, self.z_tokens = self.map("z_emb", c.embed, emb), self.map("z_tokens", c.embed, width)
        self.text_emb = self.map("text_emb", c.pooled, emb) if c.pooled else None
        self.text = self.map("text", c.text, width) if c.text else None
        self.null_z = nn.Parameter(torch.randn(c.embed) * 0.02) if c.null else None
        self.hint = nn.Sequential(*led(c.unet.layout)) if c.hint else None
        self.unet = UNet(c.unet)

    def map(self, part: Part, cin: int, cout: int) -> nn.Sequential:
        """A linear layer, normalised if so configured; that of the tokens makes them side by side."""
        norm = nn.LayerNorm(cout) if part in self.config.normed else nn.Identity()
        if part != "z_tokens":
            return nn.Sequential(nn.Linear(cin, cout), norm)
        n = self.config.image_tokens
        return nn.Sequential(nn.Linear(cin, n * cout), nn.Unflatten(1, (n, cout)), norm)

    def condition(
        self,
        z_i: Tensor,
        text: Tensor | None = None,
        pooled: Tensor | None = None,
        seen: Tensor | None = None,
        drop_z: Tensor | None = None,
        layout: Tensor | None = None,
    ) -> Condition:
        """z_i [B, embed]; text [B, L, text width], pooled [B, pooled width], seen [B, L] (true where a token is);
        drop_z [B]: true where z_i is the learned null; layout: joined to x by channel."""
        if drop_z is not None:
            assert self.null_z is not None, "these weights have no null of their own: give z_i of an empty picture"
            z_i = torch.where(drop_z[:, None], self.null_z, z_i)
        emb, context = self.z_emb(z_i), self.z_tokens(z_i)
        if self.text_emb is not None and self.text is not None:
            emb, context = emb + self.text_emb(pooled), torch.cat([context, self.text(text)], dim=1)
        seen = None if seen is None else F.pad(seen, (self.config.image_tokens, 0), value=True)
        return Condition(emb, self.unet.keys(context), layout, seen)

    def forward(self, x: Tensor, t: Tensor, given: Condition) -> Tensor:
        """x [B, channels, S, S], t [B] → [B, twice as many if the variance is learned, S, S]."""
        return self.unet(x, t, *given).float()
