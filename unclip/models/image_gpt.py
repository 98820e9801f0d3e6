"""Image-GPT (Chen et al. 2020) in the form that OpenAI published: a Transformer over a picture's 1,024 colours."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unclip.nn.attention import causal
from unclip.nn.transformer import Transformer, TransformerConfig


def tower(width: int, depth: int, heads: int) -> TransformerConfig:
    return TransformerConfig(width, depth, heads, activation="quick_gelu", norm="rms")


@dataclass(frozen=True)
class ImageGPTConfig:
    colours: int = 512  # of the palette; the last row of the embedding is the start
    places: int = 1024  # 32 × 32, row by row
    transformer: TransformerConfig = field(default_factory=lambda: tower(512, 24, 8))


class ImageGPT(nn.Module):
    """colours [B, L] of the places before → logits [B, L + 1, colours] of each place and the next (L < places)."""

    def __init__(self, config: ImageGPTConfig):
        super().__init__()
        self.config, width = config, config.transformer.width
        self.tokens = nn.Embedding(config.colours + 1, width)
        self.position = nn.Parameter(torch.randn(1, config.places, width) * 0.01)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.colours, bias=False)

    def forward(self, colours: Tensor) -> Tensor:
        start = colours.new_full((len(colours), 1), self.config.colours)
        x = self.tokens(torch.cat([start, colours], dim=1))
        length = x.shape[1]
        x, _ = self.transformer(x + self.position[:, :length], causal(length, device=x.device))
        return self.out(x)
