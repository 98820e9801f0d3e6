"""OpenAI's CLIPs: the original code's outputs, and which networks look alike."""

import torch

from unclip.models.clip import CLIPConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import Schema
from unclip.weights.match import prepare, recognise
from unclip.weights.openai_clip import MEAN, OPENAI_CLIP, STD


def uncentred(pictures: torch.Tensor) -> torch.Tensor:
    """What our CLIP takes, for pictures as OpenAI's code takes them."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (pictures * std + mean) * 2 - 1


def test_golden_vit(golden, filled):
    """clip_vit_tiny.npz: outputs of the original CLIP class; its weights are the recipe's."""
    image, text = (TransformerConfig(64, 2, 1, activation="quick_gelu") for _ in range(2))
    config = CLIPConfig(24, 32, 8, image, text, 50, 8, 49, True, None, MEAN, STD)
    m = prepare(OPENAI_CLIP, config)
    assert recognise(Schema(m.wanted), [OPENAI_CLIP], "tiny").config == config
    net, true = filled(m), golden("clip_vit_tiny")
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(net.image(true["image"]), true["image_features"], **close)
    torch.testing.assert_close(net.text(true["text"])[1], true["text_features"], **close)
    z_i, z_t = net.encode_image(uncentred(true["image"])), net.encode_text(true["text"])[1]
    torch.testing.assert_close(net.log_scale.exp() * z_i @ z_t.T, true["logits"], **close)
