"""CLIP (Radford et al. 2021): pictures and captions in one embedding space; z_i and z_t are its outputs."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.models.clip_resnet import AttentionResNet, ResNetConfig
from unclip.nn.attention import causal
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class CLIPConfig:
    embed: int = 256  # width of z_i and z_t; 0 in a text tower that gives no z_t
    image_size: int = 64
    patch: int = 8
    image: TransformerConfig = field(default_factory=TransformerConfig)
    text: TransformerConfig = field(default_factory=TransformerConfig)
    vocab: int = 8192
    context: int = 32  # tokens of a caption, start and end included
    end: int = 2  # id of the end token, where the caption's embedding is read
    pre_norm: bool = False  # the picture's tokens are normalised before the first block, as in OpenAI's
    resnet: ResNetConfig | None = None  # a ResNet sees the pictures instead of a ViT; `image` then says nothing
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of the training pictures' colours in [0, 1]; the tower subtracts it
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    sketch: int = 0  # side of a thumbnail that z_i is given, and must tell; 0 is the paper's CLIP, which need not


class TextTowerConfig(CLIPConfig):
    """Of a text tower alone: what is said of pictures has no meaning."""


class ImageTowerConfig(CLIPConfig):
    """Of a picture tower alone: what is said of text has no meaning."""


def thumbnail(pictures: Tensor, side: int) -> Tensor:
    """[B, 3, S, S] → [B, 3·side²]: each pixel the mean of what it covers."""
    return F.adaptive_avg_pool2d(pictures, side).flatten(1)


def centred(pictures: Tensor, config: CLIPConfig) -> Tensor:
    """[−1, 1] → zero mean and unit deviation, by the colours that this CLIP was trained on."""
    if {*config.mean, *config.std} == {0.5}:
        return pictures
    mean, std = (pictures.new_tensor(v)[:, None, None] for v in (config.mean, config.std))
    return ((pictures + 1) / 2 - mean) / std


class ImageTower(nn.Module):
    """centred pictures [B, 3, S, S] → z_i [B, embed]: a ViT read at its class token, and the thumbnail if asked."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        width, grid = config.image.width, config.image_size // config.patch
        self.patches = nn.Conv2d(3, width, config.patch, config.patch)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 1 + grid**2, width) * 0.02)
        self.norm = nn.LayerNorm(width) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(config.image)
        self.project = nn.Linear(width, config.embed, bias=False)
        self.side = config.sketch
        self.sketch = nn.Linear(3 * self.side**2, config.embed) if self.side else None

    def forward(self, pictures: Tensor, kept: Tensor | None = None) -> Tensor:
        """kept [B, K]: the patches to look at; all by default."""
        x = self.patches(pictures).flatten(2).transpose(1, 2) + self.position[:, 1:]
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(self.first + self.position[:, :1]).expand(len(x), -1, -1).to(x), x], dim=1)
        z_i = self.project(self.transformer(self.norm(x))[0][:, 0])
        return z_i if self.sketch is None else z_i + self.sketch(thumbnail(pictures, self.side))


class TextTower(nn.Module):
    """tokens [B, L], zero padded → (sequence [B, L, width], z_t [B, embed] read at the end token).

    Without an `embed`, what is read there is left as it is.
    """

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        width, self.end = config.text.width, config.end
        self.tokens = nn.Embedding(config.vocab, width)
        self.position = nn.Parameter(torch.randn(1, config.context, width) * 0.01)
        self.transformer = Transformer(config.text)
        self.project = nn.Linear(width, config.embed, bias=False) if config.embed else nn.Identity()
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.position[:, :length]
        x, _ = self.transformer(x, causal(length, device=x.device))
        at_end = (tokens == self.end).int().argmax(dim=1)
        return x, self.project(x[torch.arange(len(x), device=x.device), at_end])


class CLIP(nn.Module):
    turns = ("text", "image")  # of which one is used at a time

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        resnet = config.resnet
        self.image = AttentionResNet(resnet, config.image_size, config.embed) if resnet else ImageTower(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # the learned temperature, inverted
        self.sketch = nn.Linear(config.embed, 3 * config.sketch**2) if config.sketch else None

    def encode_image(self, pictures: Tensor, kept: Tensor | None = None) -> Tensor:
        """pictures [B, 3, S, S] in [−1, 1] → unit z_i [B, embed], float32."""
        return F.normalize(self.image(centred(pictures, self.config), kept).float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B, L] → (sequence [B, L, width], unit z_t [B, embed] in float32)."""
        sequence, z_t = self.text(tokens)
        return sequence, F.normalize(z_t.float(), dim=-1)

    def loss(self, pictures: Tensor, tokens: Tensor, same: Tensor, keep: float, g: torch.Generator) -> Tensor:
        """Symmetric cross-entropy over the batch's similarities (CLIP, figure 3).

        same: boolean [B, B], true where caption j also describes picture i; those pairs are no negatives.
        keep: the share of patches seen, drawn from `g` (FLIP: half the work, and an augmentation).
        With a `sketch`, the squared error of the thumbnail is added: captions alone teach z_i what is shown, not where.
        """
        patches = (self.config.image_size // self.config.patch) ** 2
        kept = torch.rand(len(pictures), patches, generator=g).argsort(1)[:, : max(1, round(keep * patches))]
        z_i = self.encode_image(pictures, kept.to(pictures.device) if keep < 1 else None)
        z_t = self.encode_text(tokens)[1]
        logits = self.log_scale.clamp(max=math.log(100)).exp() * z_i @ z_t.T
        own = torch.arange(len(logits), device=logits.device)
        logits = logits.masked_fill(same & (own[:, None] != own), -torch.inf)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        if self.sketch is None:
            return loss
        told = self.sketch(self.config.embed**0.5 * z_i).float()
        return loss + 10 * (told - thumbnail(pictures, self.config.sketch)).square().mean()
