"""Before anything heavy is imported: one thread, no network, the same examples every time. And a tiny pipeline."""

import os
from pathlib import Path
from typing import NamedTuple

# Several workers share few cores, and sums taken by one thread come out the same on every machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that an error must be."""
        (line,) = self.err.splitlines()
        assert line.startswith("unclip: error: ")
        return line.removeprefix("unclip: error: ")


@pytest.fixture
def cli(capsys):
    """Run a command line in this process, as a user would see it."""
    from unclip.cli.main import main

    def run(*words: object) -> Done:
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny():
    """A whole pipeline of random weights, 16 px to 64 px, that draws a picture of few steps in a few milliseconds."""
    import torch

    from unclip.models.clip import CLIP, CLIPConfig
    from unclip.models.decoder import Decoder, DecoderConfig
    from unclip.models.prior import Prior, PriorConfig
    from unclip.models.prior_ar import PriorAR, PriorARConfig
    from unclip.models.tokenizer import Tokenizer
    from unclip.models.upsampler import Upsampler, UpsamplerConfig
    from unclip.nn.transformer import TransformerConfig
    from unclip.nn.unet import UNetConfig
    from unclip.pipeline import UnCLIP

    torch.manual_seed(0)
    tower, vocab = TransformerConfig(width=16, depth=1, heads=2), 300
    net = UNetConfig(out_channels=6, channels=(8, 8), depth=1, attention=(1,), head=8, context=16, patch=2, layout=2)
    clip = CLIP(CLIPConfig(16, 16, 8, tower, tower, vocab, context=16))
    prior = Prior(PriorConfig(16, 16, 16, tower, measured=4))
    decoder = Decoder(DecoderConfig(16, 16, vocab, 16, 2, tower, net))
    upsampler = Upsampler(UpsamplerConfig(16, 64, unet=UNetConfig(6, channels=(8,), depth=1, attention=(), patch=4)))
    for part in (clip, prior, decoder, upsampler):
        for parameter in part.eval().requires_grad_(False).parameters():
            parameter += 0.1 * torch.randn(parameter.shape)  # layers that begin at zero would draw one grey picture
    prior.error.fill_(0.3)
    prior_ar = PriorAR(PriorARConfig(16, 16, 16, components=5, buckets=64, transformer=tower)).eval()
    for parameter in prior_ar.requires_grad_(False).parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    tokenizer = Tokenizer.train(["a red fox", "a blue cat"], vocab)
    return UnCLIP(tokenizer, clip, prior, decoder, upsampler, "tiny", prior_ar=prior_ar)


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory) -> Path:
    """The tiny pipeline as a folder of weights, not to be changed."""
    return tiny.save_pretrained(tmp_path_factory.mktemp("weights") / "tiny")
