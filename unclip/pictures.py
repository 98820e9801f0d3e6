"""Tensors to pictures."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor


def grid(pictures: Tensor, columns: int = 8, gap: int = 2) -> Image.Image:
    """[N, 3, H, W] in [−1, 1] → one sheet."""
    return sheet(to_pil(pictures), columns, gap)


def sheet(images: Sequence[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """Pictures of one size side by side on white, row after row."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    paper = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        paper.paste(image, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return paper


def to_uint8(pictures: Tensor) -> Tensor:
    """[N, 3, H, W] in [−1, 1] → uint8 [N, H, W, 3] on the CPU."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in [−1, 1] → N pictures."""
    return [Image.fromarray(picture.numpy()) for picture in to_uint8(pictures)]
