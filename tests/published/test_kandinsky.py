"""Kandinsky 2.1 and 2.2 of tiny random networks. The slow tests compare its pictures with those of diffusers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from PIL import Image

from unclip.errors import UnclipError
from unclip.models.clip import CLIPConfig
from unclip.models.multilingual import MultilingualConfig, MultilingualTokenizer
from unclip.models.tokenizer import Tokenizer
from unclip.models.vqgan import VQGANConfig
from unclip.nn.transformer import TransformerConfig
from unclip.pipeline import UnCLIP
from unclip.published.kandinsky import Kandinsky, Words
from unclip.weights import diffusers, hf_clip, kandinsky, load, multilingual, vqgan
from unclip.weights.family import Family
from unclip.weights.match import prepare
from unclip.weights.scheduler import Scheduler

EMBED = 32
TOWER = TransformerConfig(EMBED, 1, 1, activation="quick_gelu")
UNET = replace(kandinsky.DECODER.unet, channels=(32, 64), depth=1, attention=(1,), head=4, context=EMBED)
DDPM = Scheduler("ddpm", variance="learned_range", reach=2.0, spacing="leading")
DDIM = Scheduler(offset=1, to_data=False)


def network(family: Family, config: Any, seed: int = 0) -> Any:
    g, m = torch.Generator().manual_seed(seed), prepare(family, config)
    state = {key: 0.05 * torch.randn(spec.shape, generator=g) for key, spec in m.wanted.items()}
    state |= {key: w + 1 for key, w in state.items() if "norm" in key and key.endswith("weight") and w.ndim == 1}
    return load.fill(m, state.__getitem__)


@pytest.fixture
def make() -> Any:
    """A function of what the decoder reads beside z_i, of its scheduler, and of the channels that are joined."""

    def build(reads: bool, scheduler: Scheduler, layout: int = 0) -> Kandinsky:
        prior = replace(diffusers.PUBLISHED_PRIOR, embed=EMBED, text=EMBED, transformer=TransformerConfig(64, 1, 2),
                        reach=10.0)  # fmt: skip
        told = {"text": 24, "pooled": EMBED} if reads else {"text": 0, "pooled": 0, "normed": ("z_emb", "z_tokens")}
        decoder = replace(kandinsky.DECODER, size=8, embed=EMBED, unet=replace(UNET, layout=layout), **told,
                          hint=layout == 4, diffusion=replace(kandinsky.LATENT, betas=scheduler.betas))  # fmt: skip
        words = None
        if reads:
            pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("fox", -3.0), ("a", -9.0)]
            net = MultilingualConfig(EMBED, 40, 90, text=TransformerConfig(24, 1, 4, post_norm=True))
            bpe = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 3, False))
            words = Words(MultilingualTokenizer(bpe), network(multilingual.MULTILINGUAL_CLIP, net))
        return Kandinsky(
            Tokenizer.clip(), network(hf_clip.HF_CLIP, CLIPConfig(EMBED, 28, 14, TOWER, TOWER, 49408, 77, 49407, True)),
            network(diffusers.PRIOR, prior), network(diffusers.KANDINSKY, decoder),
            network(vqgan.MOVQ_22, VQGANConfig(32, (1, 2, 2, 2), 1, (3,), 4, 4, 12, True)), scheduler, words, "k",
        )  # fmt: skip

    return build


@pytest.fixture
def depth(tmp_path) -> Path:
    path = tmp_path / "depth.png"
    Image.radial_gradient("L").save(path)
    return path


def test_a_decoder_led_by_depth(make, depth):
    led, few = make(False, DDPM, 4), {"steps": 2, "prior_steps": 2, "progress": False}
    turned = depth.with_name("turned.png")
    Image.linear_gradient("L").save(turned)
    drawn = [led.generate("a fox", hint=path, **few) for path in (depth, turned)]
    assert drawn[0].images[0] != drawn[1].images[0]
    assert drawn[0].params["hint"] == str(depth)
    assert led.variations(depth, n=1, hint=str(depth), steps=3, progress=False).images[0].size == (64, 64)
    with pytest.raises(UnclipError, match="no whole pipeline with a decoder that a picture of depths leads"):
        led.save_diffusers(depth.parent / "theirs")
    with pytest.raises(UnclipError, match="is led by a picture of depths; name its file as hint"):
        led.generate("a fox", **few)
    with pytest.raises(UnclipError, match="cannot read 'none.png'"):
        led.generate("a fox", hint="none.png", **few)
    with pytest.raises(UnclipError, match="hint does nothing .* their decoder is led by no picture; leave it out"):
        make(False, DDPM).generate("a fox", hint=depth, **few)


@pytest.mark.parametrize(
    ("reads", "scheduler", "layout"), [(True, DDIM, 0), (False, DDPM, 0), (False, DDPM, 5), (False, DDPM, 4)],
    ids=["2.1", "2.2", "fills", "led"],
)  # fmt: skip
def test_saved_in_a_folder_of_ours(make, depth, reads, scheduler, layout, kept):
    few = {"steps": 3, "prior_steps": 2, "progress": False} | ({"hint": depth} if layout == 4 else {})
    again = kept(make(reads, scheduler, layout), lambda s: s.generate("a fox", **few))
    assert again.schedulers == {"decoder": scheduler}


def test_a_prior_out_of_a_folder_of_ours(make, tmp_path):
    """What draws is led by another's prior, though it was saved with one of its own."""
    system, few = make(False, DDPM), {"steps": 2, "prior_steps": 2, "progress": False}
    led, bad = system.save_pretrained(tmp_path / "led"), tmp_path / "bad"
    system.prior.out.bias += 1
    other = system.save_pretrained(tmp_path / "other")
    again = UnCLIP.from_pretrained(led, prior=other)
    assert again.generate("a fox", **few).images[0].tobytes() == system.generate("a fox", **few).images[0].tobytes()
    assert torch.equal(again.prior.out.bias, UnCLIP.from_pretrained(led).prior.out.bias + 1)
    with pytest.raises(UnclipError, match="needs a prior beside it; name it"):
        UnCLIP.from_pretrained(led, prior=bad)
