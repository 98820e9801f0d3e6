"""DALL·E 2, the last of the line, as it learns: prior and decoder have eight pictures by heart, end to end."""

import pytest
import torch

from unclip.diffusion.process import Process
from unclip.evaluate.judge import tensor
from unclip.lineage.reader import reader
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP


@pytest.mark.slow
def test_dalle2_by_heart(eight, memorise, nearest):
    """From each caption the prior draws the z_i of its picture; from it alone the decoder draws that picture."""
    torch.manual_seed(0)
    lines = [f"{colour} {shape}" for shape in ("tower", "bridge") for colour in ("red", "green", "blue", "black")]
    read, yes = reader(), torch.ones(8, dtype=torch.bool)
    c = read.config
    ids = read.ids(lines, c.context)
    with torch.no_grad():
        text, z_t = read.clip.encode_text(ids)
        z_i = read.z_i(eight)
    process = Process("cosine", 50, "x0", "learned", cap=20.0)
    prior = Prior(PriorConfig(c.embed, c.text.width, c.context, TransformerConfig(64, 2, 4), Process(predicts="x0"),
                              whiten=1.0))  # fmt: skip
    prior.space.fit(z_i)
    unet = UNetConfig(out_channels=6, channels=(24, 32), depth=1, attention=(1,), head=16, context=32, patch=2)
    decoder = Decoder(DecoderConfig(16, c.embed, c.vocab, c.context, 1, TransformerConfig(32, 1, 2), unet, process))

    def levels(of: Process, n: int, g: torch.Generator):
        i, table = torch.randint(1, of.T + 1, (n,), generator=g), of.levels()
        return table[i], table[i - 1]

    def loss_z(g: torch.Generator) -> torch.Tensor:
        given, u = prior.condition(text, z_t, ids != 0, torch.rand(8, generator=g) < 0.1), prior.space.enter(z_i)
        noise = torch.randn(u.shape, generator=g)
        return prior.config.diffusion.denoiser(prior).loss(u, *levels(prior.config.diffusion, 8, g), noise, given=given)

    def loss_x(g: torch.Generator) -> torch.Tensor:
        x, z = eight.repeat(4, 1, 1, 1), z_i.repeat(4, 1)
        given = decoder.condition(z, ids.repeat(4, 1), torch.rand(32, generator=g) < 0.1, yes.repeat(4))
        noise = torch.randn(x.shape, generator=g)
        return process.denoiser(decoder).loss(x, *levels(process, 32, g), noise, given=given)

    memorise(prior, lambda g: loss_z(g).mean(), 400)
    memorise(decoder, lambda g: loss_x(g).mean(), 600)
    system = UnCLIP(read.tokenizer, read.clip, prior, decoder, None)
    drawn = system.generate(lines, size=16, steps=25).images
    error, which = nearest(tensor(drawn), eight)
    assert (which == torch.arange(8)).sum() >= 7 and error.median() < 0.08, f"{error} {which}"
