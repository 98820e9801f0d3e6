"""GLIDE's noised CLIP, whose code no package ships: its equations, written out for one picture and one caption."""

import torch
import torch.nn.functional as F

from unclip.models.noised_clip import MEAN, STD, NoisedImageConfig, NoisedTextConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.match import prepare
from unclip.weights.noised_clip import GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT

TOWER = TransformerConfig(128, 2, 2)


def tower(w, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """x [L, 128] through two blocks of two heads; keys have no bias; exact GELU."""

    def affine(x: torch.Tensor, name: str) -> torch.Tensor:
        y = x @ w(f"{name}.w").T
        return y if name.endswith("f_k") else y + w(f"{name}.b")

    for i in range(2):
        at = f"blocks.block_{i}"
        y = F.layer_norm(x, (128,), w(f"{at}.f_attn.ln.g"), w(f"{at}.f_attn.ln.b"))
        q, k, v = (affine(y, f"{at}.f_attn.f_{n}").view(-1, 2, 64).transpose(0, 1) for n in "qkv")
        scores = q @ k.mT / 8
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        x = x + affine((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{at}.f_attn.f_c")
        y = F.layer_norm(x, (128,), w(f"{at}.f_mlp.ln.g"), w(f"{at}.f_mlp.ln.b"))
        x = x + affine(F.gelu(affine(y, f"{at}.f_mlp.f_1")), f"{at}.f_mlp.f_2")
    return x


def read(w, x: torch.Tensor) -> torch.Tensor:
    z = F.layer_norm(x, (128,), w("blocks.output.ln.g"), w("blocks.output.ln.b")) @ w("blocks.output.f.w").T
    return z / z.norm()


def test_pictures(filled, recipe):
    m = prepare(GLIDE_CLIP_IMAGE, NoisedImageConfig(16, 16, 4, 10, TOWER))

    def w(key: str) -> torch.Tensor:
        return recipe(key, m.wanted[key].shape)

    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    colours = ((picture + 1) * 127.5 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    patches = F.unfold(colours[None], 4, stride=4)[0].T @ w("blocks.input.patch_proj").flatten(1).T
    x = torch.cat([w("blocks.input.w_t")[7][None], patches]) + w("blocks.input.w_pos")
    x = F.layer_norm(x, (128,), w("blocks.input.ln.g"), w("blocks.input.ln.b"))
    true = read(w, tower(w, x, causal=False)[0])
    torch.testing.assert_close(filled(m)(picture[None], torch.tensor([7]))[0], true, rtol=1e-5, atol=1e-5)


def test_captions(filled, recipe):
    m = prepare(GLIDE_CLIP_TEXT, NoisedTextConfig(16, 60, 9, 49, TOWER))

    def w(key: str) -> torch.Tensor:
        return recipe(key, m.wanted[key].shape)

    tokens = torch.tensor([48, 3, 3, 11, 49, 0, 0, 0, 0])  # read at 49, the end
    x = w("blocks.input.w_voc")[tokens] + w("blocks.input.w_pos")
    true = read(w, tower(w, x, causal=True)[4])
    torch.testing.assert_close(filled(m)(tokens[None])[0], true, rtol=1e-5, atol=1e-5)
