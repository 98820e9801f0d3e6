"""Karlo: outputs of the original prior, decoder and schedules."""

from dataclasses import replace

import torch

from unclip.models.encoded_decoder import EncodedDecoderConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights.family import Schema
from unclip.weights.karlo import (
    DECODER,
    KARLO_DECODER,
    KARLO_PRIOR,
    KARLO_SR,
    PRIOR,
    UPSAMPLER,
    decoder_names,
    prior_names,
)
from unclip.weights.match import prepare

UNET = UNetConfig(out_channels=6, channels=(32, 64, 96), depth=1, attention=(1, 2), head=16, context=48)
TINY = EncodedDecoderConfig(16, 3, 24, 24, 24, unet=UNET)


def close(y: torch.Tensor, true: torch.Tensor) -> None:
    torch.testing.assert_close(y, true, rtol=1e-5, atol=1e-5 * true.abs().max().item())


def test_golden_prior(golden, filled):
    """karlo_prior_tiny.npz: an output of the original PriorTransformer; its weights are the recipe's."""
    family = replace(KARLO_PRIOR, names=lambda c: prior_names(c, ""))
    config = replace(PRIOR, embed=24, text=24, context=9, transformer=TransformerConfig(64, 2, 4))
    net, true = filled(prepare(family, config)), golden("karlo_prior_tiny")
    given = net.condition(true["text_enc"], true["text_emb"], true["mask"], torch.tensor([False, False]))
    close(net(true["x"], true["t"], given), true["out"])


def test_golden_decoder(golden, filled):
    """karlo_decoder_tiny.npz: an output of the original PLMImUNet; its weights are the recipe's."""
    family = replace(KARLO_DECODER, names=lambda c: decoder_names(c, ""))
    net, true = filled(prepare(family, TINY)), golden("karlo_decoder_tiny")
    given = net.condition(true["y"], true["txt_feat_seq"], true["txt_feat"], true["mask"])
    close(net(true["x"], true["t"], given), true["out"])


def test_the_last_step_is_the_other_networks(filled):
    unet = replace(UNET, in_channels=6, out_channels=3, attention=(), context=None, scale_shift=False)
    net = filled(prepare(KARLO_SR, UpsamplerConfig(4, 16, False, unet, antialias=True, last=True)))
    x, low = torch.randn(2, 3, 16, 16), net.condition(torch.randn(2, 3, 4, 4))
    joined = torch.cat([x, low], dim=1)
    for t, used in ((torch.tensor([0, 0]), net.last), (torch.tensor([166, 166]), net.unet)):
        assert torch.equal(net(x, t, low), used(joined, t))


def test_shapes_tell_the_published_sizes():
    for family, published in ((KARLO_PRIOR, PRIOR), (KARLO_DECODER, DECODER), (KARLO_SR, UPSAMPLER)):
        assert family.config(Schema(prepare(family, published).wanted)) == published
