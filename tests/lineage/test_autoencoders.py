"""AE, DAE, MAE, VAE, VQ-VAE, VQ-VAE-2: closed forms, gradients, and eight pictures by heart."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from unclip.errors import UnclipError
from unclip.lineage.autoencoder import AE, MAE, AEConfig, AutoencoderSystem, DenoisingSystem, MAEConfig, MaskedSystem
from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.vae import BIN, VAE, VAEConfig, VAESystem, kl_normal, nll, per_dimension
from unclip.lineage.vqvae import FSQ, VQVAE, VQVAE2, Codebook, CodebookConfig, VQVAE2Config, VQVAEConfig
from unclip.nn.transformer import TransformerConfig

SMALL = PyramidConfig((16, 32), 1, 2)
TOWER = TransformerConfig(48, 2, 4)
BOOK = CodebookConfig(codes=32, width=8)


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_pyramid_comes_back_to_its_size():
    x = torch.randn(2, 3, 16, 16)
    h = Down(SMALL, 3, 5)(x)
    assert h.shape == (2, 5, 4, 4)
    assert Up(SMALL, 5, 3)(h).shape == x.shape


def test_kl_is_that_of_torch():
    mean, log_var = torch.randn(4, 6), torch.randn(4, 6)
    true = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_normal(mean, log_var), true)
    assert kl_normal(torch.zeros(1, 6), torch.zeros(1, 6)).item() == 0


def test_bits_of_a_known_distribution():
    """Pixels that are N(0, s²) cost their differential entropy plus 8 bits less one for the range of 2."""
    s = 0.3
    x = s * torch.randn(64, 3, 32, 32, generator=g())
    found = per_dimension(nll(x, torch.zeros(()), torch.tensor(s).log()), x).mean()
    true = 0.5 * math.log2(2 * math.pi * math.e * s**2) - math.log2(BIN)
    assert found.item() == pytest.approx(true, abs=0.01)


def test_all_values_together_have_probability_one():
    values = torch.linspace(-1, 1, 256)[:, None]
    p = (-nll(values, torch.zeros(()), torch.tensor(0.1).log())).exp().sum()
    assert p.item() == pytest.approx(1, abs=1e-4)


def test_the_reparameterised_gradient():
    """d/dμ E[z²] = 2μ and d/dσ E[z²] = 2σ for z = μ + σ eps."""
    mean, log_std = torch.tensor(0.7, requires_grad=True), torch.tensor(-0.4, requires_grad=True)
    z = mean + log_std.exp() * torch.randn(400_000, generator=g())
    z.square().mean().backward()
    assert mean.grad.item() == pytest.approx(1.4, abs=0.02)
    assert log_std.grad.item() == pytest.approx(2 * math.exp(-0.8), abs=0.02)


def test_beta_weighs_the_kl():
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    nets = [VAE(VAEConfig(16, 8, beta, SMALL)) for beta in (0.0, 1.0, 4.0)]
    nets[0].code.bias.data.add_(1)  # a code far from N(0, I)
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    none, one, four = (net.loss(x, g()).item() for net in nets)
    assert four - none == pytest.approx(4 * (one - none), rel=1e-3)
    assert one > none


def test_masked_patches_do_not_reach_the_encoder():
    net = MAE(MAEConfig(16, 4, 0.75, TransformerConfig(16, 1, 2), TransformerConfig(16, 1, 2)))
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    patches = net.cut(x)
    torch.testing.assert_close(net.join(patches), x)
    seen, hidden = net.split(2, g())
    assert seen.shape == (2, 4) and hidden.shape == (2, 12)
    (d,) = torch.autograd.grad(net(patches, seen).sum(), patches)
    moved = d.abs().sum(2) > 0
    assert moved.gather(1, seen).all() and not moved.gather(1, hidden).any()


def test_codes_are_the_nearest_and_gradients_pass_straight_through():
    book = Codebook(BOOK)
    z = torch.randn(2, 8, 3, 3, requires_grad=True)
    q = book(z)
    true = torch.cdist(z.permute(0, 2, 3, 1).flatten(0, 2), book.codes).argmin(1).view(2, 3, 3)
    assert torch.equal(q.index, true)
    torch.testing.assert_close(q.z, book.look(q.index))
    weight = torch.randn_like(q.z)
    (d,) = torch.autograd.grad((q.z * weight).sum(), z)
    torch.testing.assert_close(d, weight)


def test_codes_become_the_means_of_what_chose_them():
    """Two tight clusters, codes near each: the moving averages arrive at the clusters' means."""
    book = Codebook(CodebookConfig(codes=2, width=2, decay=0.5, least=0.0))
    book.codes.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    flat = torch.tensor([[2.0, 1.0], [2.0, 3.0], [-2.0, 0.0], [-4.0, 0.0]])
    z = flat.T.view(1, 2, 4, 1)
    for step in range(40):
        perplexity = book(z, g(step)).perplexity
    torch.testing.assert_close(book.codes, torch.tensor([[2.0, 2.0], [-3.0, 0.0]]), atol=1e-3, rtol=0)
    assert perplexity.item() == pytest.approx(2)


def test_dead_codes_are_put_where_inputs_are():
    book = Codebook(CodebookConfig(codes=8, width=4, decay=0.5, least=0.1))
    book.codes.fill_(1e4)
    book.codes[0] = 0
    book.count.fill_(1)  # far, and not for want of a past
    book.total.copy_(book.codes)
    z = torch.randn(4, 4, 4, 4, generator=g())
    for step in range(5):
        q = book(z, g(step))
    assert book.codes.abs().max() < 10
    assert q.perplexity > 4


def test_fsq_rounds_to_its_grid_and_gradients_pass():
    """Every code is met, looks like what it was made of, and comes back; a product that is not K is refused."""
    net = FSQ(CodebookConfig(codes=15, width=2, levels=(3, 5)))
    for part in (net.narrow, net.wide):
        part.weight.data, part.bias.data = torch.eye(2), torch.zeros(2)
    line = torch.linspace(-4, 4, 60)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"))[None].requires_grad_()
    q = net(z)
    assert set(q.index.flatten().tolist()) == set(range(15))
    torch.testing.assert_close(net.look(q.index), q.z)
    assert set(q.z[0, 0].unique().tolist()) == {-1, 0, 1} and q.z[0, 1].unique().tolist() == [-1, -0.5, 0, 0.5, 1]
    (d,) = torch.autograd.grad(q.z.sum(), z)
    half = 1.001
    torch.testing.assert_close(d[0, 0], half * (1 - z[0, 0].detach().tanh() ** 2))
    even = FSQ(CodebookConfig(codes=4, width=2, levels=(4,)))
    assert even.bound(torch.linspace(-9, 9, 99)[:, None]).round().unique().tolist() == [-2, -1, 0, 1]
    with pytest.raises(UnclipError, match="make 15 codes, not 16"):
        FSQ(CodebookConfig(codes=16, levels=(3, 5)))


AUTO = {
    "ae": (lambda: AE(AEConfig(16, 32, 0.0, SMALL)), AutoencoderSystem, 250),
    "dae": (lambda: AE(AEConfig(16, 32, 0.3, SMALL)), DenoisingSystem, 250),
    "mae": (lambda: MAE(MAEConfig(16, 4, 0.75, TOWER, TOWER)), MaskedSystem, 800),
    "vae": (lambda: VAE(VAEConfig(16, 16, 1.0, SMALL)), VAESystem, 500),
    "vqvae": (lambda: VQVAE(VQVAEConfig(16, SMALL, BOOK)), None, 400),
    "fsq": (lambda: VQVAE(VQVAEConfig(16, SMALL, replace(BOOK, codes=60, levels=(5, 4, 3)))), None, 400),
    "vqvae2": (lambda: VQVAE2(VQVAE2Config(16, SMALL, PyramidConfig((32, 32), 1, 1), BOOK)), None, 400),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUTO)
def test_eight_pictures_by_heart(name, eight, memorise):
    """What comes back is the picture, not the mean of the eight (whose error is the variance)."""
    torch.manual_seed(0)
    make, system, steps = AUTO[name]
    net = make()
    memorise(net, lambda g: net.loss(eight, g), steps)
    with torch.no_grad():
        if system:
            again = system(**{name: net}).reconstruct(eight)
        else:
            codes = net.encode(eight)
            again = net.decode(*codes) if name == "vqvae2" else net.decode(codes)
    error, mean = F.mse_loss(again, eight), F.mse_loss(eight.mean(0).expand_as(eight), eight)
    share = 3 if name == "mae" else 20  # a quarter of the patches may all be white, and then nothing tells the colour
    assert error < mean / share, f"{error:.4f} of {mean:.4f}"
