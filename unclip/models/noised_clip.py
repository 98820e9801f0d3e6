"""GLIDE's noised CLIP (Nichol et al. 2021, 2112.10741, section 4.2): it reads pictures at any level of noise, so that
its gradient can guide every step. Two encoders that share an embedding space; the logit scale is 100."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import causal
from unclip.nn.transformer import Transformer, TransformerConfig

SCALE = 100.0  # of the cosine, in logits
MEAN, STD = (122.77093945, 116.74601272, 104.09373519), (68.50053285, 66.63215831, 70.32316309)  # of colours to 255


@dataclass(frozen=True)
class NoisedImageConfig:
    embed: int = 512
    image_size: int = 64
    patch: int = 4
    T: int = 1000
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(768, 12, 12))


@dataclass(frozen=True)
class NoisedTextConfig:
    embed: int = 512
    vocab: int = 65536  # rows; only the first 49,408 are words
    context: int = 77
    end: int = 49407
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(512, 12, 8))


class NoisedImageEncoder(nn.Module):
    """noised pictures [B, 3, S, S] in about [−1, 1], steps t [B] → unit z_i [B, embed], read at the token of t."""

    def __init__(self, config: NoisedImageConfig):
        super().__init__()
        self.config, width = config, config.transformer.width
        places = (config.image_size // config.patch) ** 2
        self.patches = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.time = nn.Embedding(config.T, width)
        self.position = nn.Parameter(torch.randn(1, 1 + places, width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.transformer = Transformer(config.transformer)
        self.project = nn.Linear(width, config.embed, bias=False)

    def forward(self, pictures: Tensor, t: Tensor) -> Tensor:
        mean, std = (pictures.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        x = self.patches(((pictures + 1) * 127.5 - mean) / std).flatten(2).mT
        x = torch.cat([self.time(t)[:, None], x], dim=1) + self.position
        x, _ = self.transformer(self.norm(x))
        return F.normalize(self.project(x[:, 0]).float(), dim=-1)


class NoisedTextEncoder(nn.Module):
    """tokens of CLIP [B, context] → unit z_t [B, embed], read at the end token."""

    def __init__(self, config: NoisedTextConfig):
        super().__init__()
        self.config, width = config, config.transformer.width
        self.tokens = nn.Embedding(config.vocab, width)
        self.position = nn.Parameter(torch.randn(1, config.context, width) * 0.01)
        self.transformer = Transformer(config.transformer)
        self.project = nn.Linear(width, config.embed, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.position[:, :length]
        x, _ = self.transformer(x, causal(length, device=x.device))
        at_end = (tokens == self.config.end).int().argmax(dim=1)
        return F.normalize(self.project(x[torch.arange(len(x), device=x.device), at_end]).float(), dim=-1)
