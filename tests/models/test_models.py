"""The four networks: what each is given reaches its output, what it must not see does not."""

import pytest
import torch
import torch.nn.functional as F

from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig, Space
from unclip.models.prior_ar import PriorAR, PriorARConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.attention import causal
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.recipes import mini, paper, small

TOWER = TransformerConfig(32, 2, 4)
YES, NO = torch.tensor([True, True]), torch.tensor([False, False])


@pytest.fixture
def clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(CLIPConfig(16, 16, 4, TOWER, TOWER, vocab=64, context=12)).eval()


def captions(*rows: list[int], length: int = 12) -> torch.Tensor:
    return torch.tensor([[1, *row, 2] + [0] * (length - len(row) - 2) for row in rows])


def test_clip_reads_the_end_token_and_ignores_padding(clip):
    ids = captions([5, 6, 7], [8, 9])
    z = clip.encode_text(ids)[1]
    assert torch.allclose(z.norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(z, clip.encode_text(ids[:, :6])[1], atol=1e-6)  # fewer zeros, the same embedding
    after = ids.clone()
    after[:, -1] = 33  # behind the end token
    assert torch.allclose(z, clip.encode_text(after)[1], atol=1e-6)


def test_clip_loss_is_the_symmetric_cross_entropy(clip):
    g = torch.Generator().manual_seed(0)
    pictures, ids = torch.randn(3, 3, 16, 16), captions([5], [6], [7])
    same = torch.eye(3, dtype=torch.bool)
    z_i, z_t = clip.encode_image(pictures), clip.encode_text(ids)[1]
    logits = clip.log_scale.exp() * z_i @ z_t.T
    expected = -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2
    assert torch.allclose(clip.loss(pictures, ids, same, 1.0, g), expected, atol=1e-6)


def test_clip_loss_leaves_out_pairs_that_are_also_true(clip):
    """Two copies of a picture under one caption: as negatives they cost log 2, left out they cost nothing."""
    g = torch.Generator()
    pictures, ids = torch.randn(1, 3, 16, 16).repeat(2, 1, 1, 1), captions([5], [5])
    alone = torch.eye(2, dtype=torch.bool)
    assert clip.loss(pictures, ids, alone, 1.0, g).item() == pytest.approx(0.6931, abs=1e-3)
    assert clip.loss(pictures, ids, torch.ones_like(alone), 1.0, g).item() == pytest.approx(0, abs=1e-5)


def test_clip_learns_to_sketch_when_asked():
    """The thumbnail's error is part of the loss, and falls as the head learns it."""
    torch.manual_seed(0)
    net, g = CLIP(CLIPConfig(16, 16, 4, TOWER, TOWER, 64, 12, sketch=2)), torch.Generator()
    pictures, ids = torch.rand(8, 3, 1, 1).repeat(1, 1, 16, 16) * 2 - 1, captions(*([i] for i in range(5, 13)))
    steps = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        loss = net.loss(pictures, ids, torch.eye(8, dtype=torch.bool), 1.0, g)
        loss.backward()
        steps.step()
        steps.zero_grad()
    told = net.sketch(4.0 * net.encode_image(pictures)).view(8, 3, 2, 2)
    assert (told - pictures[:, :, :2, :2]).square().mean() < 0.1 * pictures.var()


def test_clip_image_tower_sees_only_the_kept_patches(clip):
    pictures = torch.randn(2, 3, 16, 16)
    kept = torch.tensor([[0, 1], [0, 1]])
    z = clip.encode_image(pictures, kept)
    pictures[:, :, 8:] = 0  # the lower half holds patches 8 to 15
    assert torch.allclose(z, clip.encode_image(pictures, kept), atol=1e-6)
    assert not torch.allclose(z, clip.encode_image(pictures, kept + 1))


@pytest.fixture
def prior() -> Prior:
    torch.manual_seed(0)
    return Prior(PriorConfig(embed=16, text=32, context=12, transformer=TOWER)).eval()


def prefix(prior: Prior, drop: torch.Tensor = NO, length: int = 8):
    g = torch.Generator().manual_seed(3)
    text, z_t = torch.randn(2, length, 32, generator=g), F.normalize(torch.randn(2, 16, generator=g), dim=1)
    seen = torch.arange(length) < torch.tensor([[5], [length]])
    return text, z_t, seen, prior.condition(text, z_t, seen, drop)


def test_prior_cached_equals_uncached(prior):
    """Three tokens over the prefix's keys give what the whole sequence of text, z_t, t, z_i, final gives."""
    text, z_t, seen, given = prefix(prior)
    x, t = torch.randn(2, 16), torch.tensor([3, 700])
    padded, seen = F.pad(text, (0, 0, 0, 4)), F.pad(seen, (0, 4))
    tokens = torch.cat([prior.text(padded), prior.z_t(prior.space.scale * z_t)[:, None], prior.time(t)[:, None],
                        prior.z_i(x)[:, None], prior.final.expand(2, -1, -1)], dim=1)  # fmt: skip
    visible = torch.cat([seen, torch.ones(2, 4, dtype=torch.bool)], dim=1)[:, None, None]
    y, _ = prior.transformer(tokens + prior.position, causal(16) & visible)
    assert torch.allclose(prior(x, t, given), prior.out(y[:, -1]), atol=1e-5)


def test_prior_ignores_padding_and_dropped_conditions(prior):
    x, t = torch.randn(2, 16), torch.tensor([3, 700])
    text, z_t, seen, given = prefix(prior)
    y = prior(x, t, given)
    text[0, 5:] = 9.0
    assert torch.allclose(y, prior(x, t, prior.condition(text, z_t, seen, NO)), atol=1e-6)
    null = prior(x, t, prior.condition(text, z_t, seen, YES))
    assert torch.allclose(null, prior(x, t, prior.condition(-text, -z_t, seen, YES)), atol=1e-6)
    assert not torch.allclose(null, y)
    mixed = prior.condition(text, z_t, seen, torch.tensor([True, False]))
    assert torch.allclose(prior(x, t, mixed), torch.stack([null[0], y[1]]), atol=1e-6)


def test_those_that_share_a_caption_do_not_see_one_another(prior):
    x, t = torch.randn(6, 16), torch.tensor([3, 700, 50, 999, 1, 300])
    given = prefix(prior)[-1]
    alone = [prior(x[[i, 3 + i]], t[[i, 3 + i]], given) for i in range(3)]
    assert torch.allclose(prior(x, t, given), torch.stack(alone, dim=1).flatten(0, 1), atol=1e-5)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_coordinates_of_z_i_have_variance_one_on_average_and_lead_back(whiten):
    turn = torch.linalg.qr(torch.randn(16, 16))[0]
    z = F.normalize((torch.randn(4000, 16) * torch.logspace(0, -1, 16) + 1) @ turn, dim=1)
    space = Space(16, whiten)
    space.fit(z)
    u = space.enter(z)
    assert torch.allclose(space.leave(u), z, atol=1e-4)
    if whiten:
        assert u.var(0).mean().item() == pytest.approx(1, abs=0.01)
        own = torch.linalg.eigvalsh((4 * z).T.cov()).sqrt()
        ratio = u.std(0) / own ** (1 - whiten)
        assert torch.allclose(ratio, ratio.mean().expand(16), rtol=0.02)
    assert (u.abs() <= space.reach(6.0)).all()


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    unet = UNetConfig(3, 6, (8, 16), 1, (1,), 8, context=32, patch=2, layout=2)
    net = Decoder(DecoderConfig(16, 16, 64, 12, 4, TOWER, unet)).eval()
    for p in net.unet.parameters():
        p.data += torch.randn_like(p) * 0.05  # past the zeros that a fresh network ends its branches with
    return net


def test_decoder_uses_z_i_and_caption_and_drops_each_alone(decoder):
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    z, ids = F.normalize(torch.randn(2, 16), dim=1), captions([5, 6], [7])

    def run(z, ids, drop_z=NO, drop_text=NO):
        return decoder(x, t, decoder.condition(z, ids, drop_z, drop_text))

    y = run(z, ids)
    assert y.shape == (2, 6, 16, 16)
    assert not torch.allclose(y, run(-z, ids)) and not torch.allclose(y, run(z, ids.flip(0)))
    assert torch.allclose(run(z, ids, YES), run(-z, ids, YES)) and not torch.allclose(y, run(z, ids, YES))
    other = captions([9, 9], [8])
    assert torch.allclose(run(z, ids, NO, YES), run(z, other, NO, YES))
    assert not torch.allclose(run(z, ids, NO, YES), run(-z, ids, NO, YES))


def test_decoder_context_is_four_tokens_of_z_i_and_the_caption(decoder):
    given = decoder.condition(torch.randn(2, 16), captions([5], [6]), NO, NO)
    assert {k.shape[2] for k, _ in given.keys} == {4 + 12}


def test_upsampler_adds_to_the_enlarged_picture():
    config = UpsamplerConfig(8, 32, True, UNetConfig(6, 3, (8, 8), 1, (), patch=4))
    net, low = Upsampler(config), torch.rand(2, 3, 8, 8) * 2 - 1
    given = net.condition(low)
    assert given.shape == (2, 3, 32, 32)
    assert torch.equal(net(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]), given), given)  # fresh: nothing to add


def build(recipe) -> torch.nn.Module:
    kinds = {CLIPConfig: CLIP, PriorConfig: Prior, PriorARConfig: PriorAR, DecoderConfig: Decoder,
             UpsamplerConfig: Upsampler}  # fmt: skip
    with torch.device("meta"):
        return kinds[type(recipe.model)](recipe.model)


def millions(recipe) -> float:
    return sum(p.numel() for p in build(recipe).parameters()) / 1e6


def test_paper_sizes():
    """DALL·E 2, table 3: decoder 3.5 B, upsamplers 700 M and 300 M, prior 1 B."""
    assert millions(paper.decoder()) == pytest.approx(3500, rel=0.03)
    assert millions(paper.upsampler()) == pytest.approx(700, rel=0.05)
    assert millions(paper.upsampler_1024()) == pytest.approx(300, rel=0.07)
    assert millions(paper.prior()) == pytest.approx(1000, rel=0.25)
    assert millions(paper.prior_ar()) == pytest.approx(1000, rel=0.25)


@pytest.mark.parametrize("recipes", [mini, small])
def test_shipped_sets_stay_under_64_megabytes(recipes):
    assert 2 * sum(millions(stage()) for stage in recipes.stages) < 64
