"""The shipped tokenizer and CLIP: they read captions for the ancestors that are told what to draw."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.tokenizer import Tokenizer
from unclip.weights import hub
from unclip.weights.checkpoint import load_module


class Reader:
    def __init__(self, device: torch.device | str):
        folder = hub.SHIPPED / "mini"
        self.tokenizer, self.device = Tokenizer.load(folder / "tokenizer" / "tokenizer.json"), device
        net, self.config = load_module(folder / "clip", CLIPConfig, CLIP)
        self.clip: CLIP = net.to(device)  # type: ignore[assignment]

    def ids(self, captions: Sequence[str], context: int) -> Tensor:
        """Token ids [B, context], zero padded."""
        return self.tokenizer.encode(list(captions), context)[0].to(self.device)

    @torch.no_grad()
    def z_t(self, captions: Sequence[str]) -> Tensor:
        """Unit embeddings of captions, [B, embed]."""
        return self.clip.encode_text(self.ids(captions, self.config.context))[1].clone()

    @torch.no_grad()
    def z_i(self, pictures: Tensor) -> Tensor:
        """Unit embeddings of pictures of any size, [B, embed]."""
        return self.clip.encode_image(enlarge(pictures, self.config.image_size)).clone()


@cache
def reader(device: torch.device | str = "cpu") -> Reader:
    """Read once: several systems ask for it."""
    with torch.inference_mode(False):
        return Reader(device)


def enlarge(pictures: Tensor, size: int) -> Tensor:
    """[N, 3, s, s] → [N, 3, size, size], bicubic."""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
