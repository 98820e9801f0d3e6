import pytest
import torch
from PIL import Image, ImageDraw


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def disc() -> Image.Image:
    """A red disc on white, 16 px: what the tiny pipeline draws."""
    image = Image.new("RGB", (16, 16), "white")
    ImageDraw.Draw(image).ellipse((3, 3, 12, 12), fill=(200, 30, 20))
    return image


@pytest.fixture
def box() -> Image.Image:
    image = Image.new("RGB", (16, 16), "white")
    ImageDraw.Draw(image).rectangle((2, 4, 13, 11), fill=(20, 60, 200))
    return image
