"""DALL·E 1's dVAE: the outputs of the original code."""

import torch

from unclip.models.dvae import DVAEDecoderConfig, DVAEEncoderConfig
from unclip.weights.dvae import DVAE_DECODER, DVAE_ENCODER
from unclip.weights.match import prepare


def test_golden(golden, filled):
    """dvae_tiny.npz: Encoder and Decoder of the dall_e package; their weights are the recipe's."""
    true = golden("dvae_tiny")
    encoder = filled(prepare(DVAE_ENCODER, DVAEEncoderConfig(64, 512)))
    decoder = filled(prepare(DVAE_DECODER, DVAEDecoderConfig(64, 16, 512)))
    z = encoder(true["x"] * 2 - 1)
    torch.testing.assert_close(z, true["z"], rtol=1e-5, atol=1e-5)
    assert torch.equal(z.argmax(1), true["codes"])
    codes = torch.nn.functional.one_hot(true["codes"], 512).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(decoder.statistics(codes), true["x_stats"], rtol=1e-5, atol=1e-5)
    assert decoder(codes).shape == (1, 3, 32, 32)
    assert decoder(codes).abs().max() <= 1
