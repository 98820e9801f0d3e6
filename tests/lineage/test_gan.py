"""The GAN: each player gets its own gradient, penalties have known values, eight pictures by heart."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unclip.lineage.gan import GAN, GANConfig, slope
from unclip.lineage.pyramid import PyramidConfig

TINY = GANConfig(16, 8, 8, 32, 2.0, PyramidConfig((16, 24), 1, 2), PyramidConfig((16, 24), 1, 2))


def test_the_slope_of_a_linear_critic_is_its_weights():
    critic = nn.Linear(12, 1)
    x = torch.randn(3, 12, requires_grad=True)
    torch.testing.assert_close(slope(critic(x), x), critic.weight.square().sum().expand(3))


def test_each_player_has_its_own_gradient():
    """What one backward pass leaves is what two losses, each for one player, would."""
    torch.manual_seed(0)
    net, x, z_t = GAN(TINY), torch.randn(4, 3, 16, 16), F.normalize(torch.randn(4, 8), dim=1)
    net.loss(x, z_t, torch.Generator().manual_seed(0)).backward()
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    drawn = net.generator(z, z_t)
    own = F.softplus(net.critic(x, z_t).detach() - net.critic(drawn, z_t)).mean()
    learnt = list(net.generator.parameters())
    for p, g in zip(learnt, torch.autograd.grad(own, learnt), strict=True):
        torch.testing.assert_close(p.grad, g)
    fake, real = drawn.detach().requires_grad_(), x.requires_grad_()
    d_fake, d_real = net.critic(fake, z_t), net.critic(real, z_t)
    own = (F.softplus(d_fake - d_real) + slope(d_fake, fake) + slope(d_real, real)).mean()  # γ / 2 = 1
    learnt = list(net.critic.parameters())
    for p, g in zip(learnt, torch.autograd.grad(own, learnt), strict=True):
        torch.testing.assert_close(p.grad, g)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.slow
def test_by_heart(eight, nearest):
    """What is drawn for a caption is its picture, for most of the eight: no collapse onto one."""
    torch.manual_seed(0)
    net, z_t = GAN(TINY), torch.eye(8)
    stepper = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.0, 0.98), weight_decay=0)
    for step in range(900):
        stepper.zero_grad()
        net.loss(eight, z_t, torch.Generator().manual_seed(step)).backward()
        stepper.step()
    with torch.no_grad():
        error, which = nearest(net.generator(torch.randn(8, 8), z_t), eight)
    assert error.median() < 0.1 and (which == torch.arange(8)).sum() >= 6
