"""GLIDE (Nichol et al. 2021, 2112.10741): a U-Net that reads a caption through a Transformer of its own; also its
upsampler, and both as they were tuned to inpaint."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unclip.diffusion.process import Process
from unclip.models.adm import enlarged
from unclip.models.decoder import Condition
from unclip.nn.transformer import Transformer, TransformerConfig
from unclip.nn.unet import UNet, UNetConfig


@dataclass(frozen=True)
class GlideConfig:
    size: int = 64
    vocab: int = 50257
    context: int = 128
    low: int = 0  # side of the picture to enlarge; 0: none
    inpaint: bool = False
    text: TransformerConfig = field(default_factory=lambda: TransformerConfig(512, 16, 8))
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: Process = field(default_factory=lambda: Process(variance="learned"))


class Glide(nn.Module):
    """The caption is added to the time embedding, as its last position reads it, and looked at by every attention."""

    def __init__(self, config: GlideConfig):
        super().__init__()
        self.config = config
        width = config.text.width
        self.tokens = nn.Embedding(config.vocab, width)
        self.position = nn.Parameter(torch.randn(config.context, width) * 0.01)
        self.padding = nn.Parameter(torch.randn(config.context, width) * 0.01)
        self.text = Transformer(config.text)
        self.text_emb = nn.Linear(width, config.unet.emb)
        self.unet = UNet(config.unet)

    def condition(
        self,
        tokens: Tensor,
        seen: Tensor,
        low: Tensor | None = None,
        picture: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Condition:
        """tokens and seen [B, context] (true where a token is); low [B, 3, s, s]; picture [B, 3, S, S] and mask
        [B, 1, S, S], 1 where it stays: without them a network for inpainting draws the whole."""
        x = torch.where(seen[..., None], self.tokens(tokens) + self.position, self.padding)
        text, _ = self.text(x)
        joined, size = [], self.config.size
        if self.config.inpaint:
            stays = text.new_zeros(len(text), 1, size, size) if mask is None else mask
            joined += [stays.expand(-1, 3, -1, -1) * (0 if picture is None else picture), stays]
        if self.config.low:
            assert low is not None, "an upsampler needs the small picture"
            joined.append(enlarged(low, text.new_empty(1, 1, size, size)))
        layout = torch.cat(joined, dim=1) if joined else None
        return Condition(self.text_emb(text[:, -1]), self.unet.keys(text), layout)

    def forward(self, x: Tensor, t: Tensor, given: Condition) -> Tensor:
        """x [B, 3, S, S], t [B] → [B, 6, S, S]: eps and the variance's place in its range."""
        return self.unet(x, t, *given).float()
