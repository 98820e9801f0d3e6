"""guided-diffusion's U-Net in both orders of its attention, and its classifier."""

import torch

from unclip.models.adm import ADMConfig
from unclip.nn.unet import UNetConfig
from unclip.weights.adm import CLASSIFIERS, GUIDED, GUIDED_DIFFUSION, IMPROVED, NEW_GUIDED_DIFFUSION, config
from unclip.weights.family import Schema
from unclip.weights.match import prepare

TINY = ADMConfig(16, 10, UNetConfig(out_channels=6, channels=(32, 64, 96), depth=1, attention=(1, 2), head=16))


def test_golden(golden, filled):
    """adm_unet_new_tiny.npz: an output of the original UNetModel; its weights are the recipe's."""
    net, true = filled(prepare(NEW_GUIDED_DIFFUSION, TINY)), golden("adm_unet_new_tiny")
    y = net(true["x"], true["t"], true["y"])
    torch.testing.assert_close(y, true["out"], rtol=1e-5, atol=1e-5 * true["out"].abs().max().item())
    older = filled(prepare(GUIDED_DIFFUSION, TINY))
    assert not torch.allclose(older(true["x"], true["t"], true["y"]), true["out"], atol=1e-3)


def test_shapes_tell_all_but_the_heads():
    """What is published is found again from nothing but its keys."""
    for family, published in ((GUIDED_DIFFUSION, GUIDED), (GUIDED_DIFFUSION, IMPROVED)):
        for c in published.values():
            assert config(Schema(prepare(family, c).wanted), published) == c
    assert {c.size for c in CLASSIFIERS.values()} == {64, 128, 256, 512}
