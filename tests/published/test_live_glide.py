"""GLIDE beside guided-diffusion, whose sampling loops GLIDE's code copies; its notebooks' way through them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.models.glide import Glide
from unclip.pipeline import UnCLIP
from unclip.published.glide import GLIDE
from unclip.settings import Request, Settings

pytestmark = pytest.mark.slow
PROMPT = "an oil painting of a corgi"


class Noise:
    """Noise from torch's own generator, as theirs takes it."""

    def __call__(self, shape: Any) -> Tensor:
        return torch.randn((1, *shape))

    def like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape)


def processes(steps: str) -> tuple[Any, Any]:
    """Of the base and the upsampler. "fast27" is GLIDE's own; its 27 steps are named one by one."""
    respace = pytest.importorskip("guided_diffusion.respace")
    from guided_diffusion import gaussian_diffusion as gd

    def process(schedule: str, kept: set[int]) -> Any:
        return respace.SpacedDiffusion(
            kept, betas=gd.get_named_beta_schedule(schedule, 1000), model_mean_type=gd.ModelMeanType.EPSILON,
            model_var_type=gd.ModelVarType.LEARNED_RANGE, loss_type=gd.LossType.MSE,
        )  # fmt: skip

    fast27 = respace.space_timesteps(1000, "10,10,3,2,2") - {999} | {997}
    return process("cosine", respace.space_timesteps(1000, steps)), process("linear", fast27)


def told(system: GLIDE, texts: list[str], net: Glide) -> tuple[Tensor, Tensor]:
    return system.tokenizer.encode(texts, net.config.context)


def guided(net: Glide, scale: float, **given: Any) -> Callable[..., Tensor]:
    """The notebooks' `model_fn`, conditional half first."""
    condition = net.condition(**given)

    def model(x: Tensor, t: Tensor) -> Tensor:
        y = net(torch.cat([x[: len(x) // 2]] * 2), t, condition)
        cond, uncond = y[:, :3].chunk(2)
        return torch.cat([torch.cat([uncond + scale * (cond - uncond)] * 2), y[:, 3:]], dim=1)

    return model


@torch.no_grad()
def test_text2im(put):
    system = UnCLIP.from_pretrained(put("base", "upsample"))
    assert isinstance(system, GLIDE)
    base, upsample = system.decoder, system.upsampler
    process, process_up = processes("100")
    tokens, seen = told(system, [PROMPT, ""], base)
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    torch.manual_seed(2)
    kept = torch.randn(100, 1, 3, 8, 8)
    steps = iter(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.randn_like", lambda x: next(steps).expand_as(x))
        model = guided(base, 3.0, tokens=tokens, seen=seen)
        small = process.p_sample_loop(model, (2, 3, 8, 8), noise, device="cpu")[:1]
    low = ((small + 1) * 127.5).round() / 127.5 - 1
    tokens, seen = told(system, [PROMPT], upsample)
    given = upsample.condition(tokens, seen, low)
    torch.manual_seed(4)
    up = torch.randn(1, 3, 32, 32)
    large = process_up.ddim_sample_loop(lambda x, t: upsample(x, t, given), up.shape, up * 0.997, device="cpu")

    class Replay(Noise):
        steps = iter(kept)

        def __call__(self, shape: Any) -> Tensor:
            return noise[:1]

        def like(self, x: Tensor) -> Tensor:
            return next(self.steps)

    request = system.fit(Request([PROMPT], [0], settings=Settings(**system.defaults)))
    x = system.stage(base, None, PROMPT, request, Replay(), lambda *_: None)
    assert (x - small).abs().max() < 1e-4
    torch.manual_seed(4)
    x = system.stage(upsample, small, PROMPT, request, Noise(), lambda *_: None)
    assert (x - large).abs().max() < 1e-4


@torch.no_grad()
def test_clip_guided(put):
    system = UnCLIP.from_pretrained(put("base", "clip_image", "clip_text"))
    assert isinstance(system, GLIDE)
    given = system.decoder.condition(*told(system, [PROMPT], system.decoder))
    z_t = system.z_t(PROMPT)

    def towards(x: Tensor, t: Tensor, **_: Any) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(100 * (z_t * system.clip_look(x, t)).sum(), x)[0] * 3.0

    torch.manual_seed(3)
    theirs = processes("20")[0].p_sample_loop(
        lambda x, t: system.decoder(x, t, given), (1, 3, 8, 8), cond_fn=towards, model_kwargs={}, device="cpu"
    )
    s = Settings(**system.defaults | {"guidance": 1.0, "clip_guidance": 3.0, "steps": 20})
    torch.manual_seed(3)
    request = system.fit(Request([PROMPT], [0], settings=s))
    x = system.stage(system.decoder, None, PROMPT, request, Noise(), lambda *_: None)
    assert (x - theirs).abs().max() < 1e-4


@torch.no_grad()
def test_inpaint(put):
    system = UnCLIP.from_pretrained(put("base_inpaint", "upsample_inpaint"))
    assert isinstance(system, GLIDE)
    base, upsample = system.inpainters["decoder"], system.inpainters["upsampler"]
    assert base is not None and upsample is not None
    process, process_up = processes("20")
    torch.manual_seed(0)
    small, large = torch.rand(1, 3, 8, 8) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    mask = (torch.arange(8) < 3).float()[:, None].expand(1, 1, 8, 8)
    kept = {8: (small, mask.bool().expand(1, 3, 8, 8))}
    mask_up = F.interpolate(mask, (32, 32), mode="nearest")
    kept[32] = large, mask_up.bool().expand(1, 3, 32, 32)
    low = torch.rand(1, 3, 8, 8) * 2 - 1

    s = Settings(**system.defaults | {"guidance": 1.0, "steps": 20})
    request = system.fit(Request([PROMPT], [0], settings=s))
    first, second = (base, process, small, mask, None), (upsample, process_up, large, mask_up, low)
    for net, chain, picture, where, below in (first, second):
        shown = None if below is None else ((below + 1) * 127.5).round() / 127.5 - 1
        given = net.condition(*told(system, [PROMPT], net), low=shown, picture=picture, mask=where)
        torch.manual_seed(3)
        noise = torch.randn(picture.shape)
        theirs = chain.p_sample_loop(
            lambda x, t, net=net, given=given: net(x, t, given), noise.shape, noise * (1 if below is None else 0.997),
            denoised_fn=lambda x0, where=where, picture=picture: x0 * (1 - where) + picture * where, device="cpu",
        )  # fmt: skip
        torch.manual_seed(3)
        x = system.stage(net, below, PROMPT, request, Noise(), lambda *_: None, kept)
        assert (x - theirs).abs().max() < 1e-4
        assert torch.equal(x[where.expand_as(x) > 0], picture[where.expand_as(x) > 0])
