"""A corpus too large for memory is kept as crops."""

import io

import numpy as np
import torch
from PIL import Image

from unclip.data import shards
from unclip.data.images import Corpus


def test_a_crop_is_a_part_of_its_picture_where_there_is_something(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(12):
        pixels = np.full((64, 64, 4), 255, np.uint8)
        pixels[:32] = rng.integers(0, 256, (32, 64, 4))  # below it is white
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "WEBP", lossless=True, exact=True)
        samples.append(shards.Sample(f"{i:05d}", data.getvalue(), {"key": f"{i:05d}", "caption": "x"}))
    shards.write(tmp_path / "64" / "train", samples, 16)
    whole, cut = (Corpus.load(tmp_path, 64, "train", limit=10, crop=crop) for crop in (None, 16))
    assert cut.images.shape == (10, 4, 16, 16)
    assert cut.images.is_contiguous()
    for picture, part in zip(whole.images, cut.images, strict=True):
        places = picture.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
        assert (places == part).flatten(2).all(2).any()
        assert (part != 255).any()
    assert torch.equal(cut.images, Corpus.load(tmp_path, 64, "train", limit=10, crop=16).images)
