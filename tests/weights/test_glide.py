"""GLIDE: the original code's output, and what it joins to the picture."""

import torch

from unclip.models.glide import GlideConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights.glide import GLIDE, inpainting
from unclip.weights.match import prepare

UNET = UNetConfig(out_channels=6, channels=(32, 64, 96), depth=1, attention=(1, 2), head=16, context=32)
TINY = GlideConfig(16, 50257, 10, text=TransformerConfig(32, 2, 4), unet=UNET)


def test_golden(golden, filled):
    """glide_base_tiny.npz: an output of the original Text2ImUNet; its weights are the recipe's."""
    net, true = filled(prepare(GLIDE, TINY)), golden("glide_base_tiny")
    y = net(true["x"], true["t"], net.condition(true["tokens"], true["mask"]))
    torch.testing.assert_close(y, true["out"], rtol=1e-5, atol=1e-5 * true["out"].abs().max().item())


def test_inpainting_joins_the_picture_where_it_stays_and_the_mask(filled):
    net = filled(prepare(GLIDE, inpainting(TINY)))
    picture, mask = torch.randn(1, 3, 16, 16), (torch.arange(16) < 8).expand(1, 1, 16, 16).float()
    tokens, seen = torch.zeros(1, 10, dtype=torch.long), torch.zeros(1, 10, dtype=torch.bool)
    layout = net.condition(tokens, seen, picture=picture, mask=mask).layout
    assert torch.equal(layout, torch.cat([picture * mask, mask], dim=1))
    assert not net.condition(tokens, seen).layout.any()
