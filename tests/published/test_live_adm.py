"""ADM beside guided-diffusion: tiny networks of random weights in its files, drawn with by both from one noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.pipeline import UnCLIP
from unclip.published.adm import ADM
from unclip.settings import Request, Settings
from unclip.weights.adm import LONG

pytestmark = pytest.mark.slow
SIDE, CLASSES = 8, 10


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    unet = pytest.importorskip("guided_diffusion.unet")
    torch.manual_seed(0)
    body: dict[str, Any] = {"model_channels": 64, "num_res_blocks": 1, "num_head_channels": 64, "resblock_updown": True,
                            "use_scale_shift_norm": True}  # fmt: skip
    nets = {
        "drawing": unet.UNetModel(SIDE, 3, out_channels=6, channel_mult=(1,), num_classes=CLASSES,
                                  attention_resolutions=(1,), **body),
        "judging": unet.EncoderUNetModel(SIDE, 3, out_channels=CLASSES, channel_mult=(1,), pool="attention",
                                         attention_resolutions=(1,), **body),
        "enlarging": unet.SuperResModel(4 * SIDE, 3, out_channels=6, channel_mult=(1, 1, 1), num_classes=CLASSES,
                                        attention_resolutions=(2,), **body),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("adm")
    for name, net in nets.items():
        for p in net.parameters():  # what begins as zeros would hide mistakes
            p.data += 0.03 * torch.randn(p.shape)
        net.eval().requires_grad_(False)
        torch.save(net.state_dict(), folder / f"{name}.pt")
    return nets, folder


class Noise:
    """Noise in the order in which it is asked for, one tensor a call, from torch's generator as theirs takes it."""

    def __call__(self, shape: Any) -> Tensor:
        return torch.randn((1, *shape))

    def like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape)


def diffusion(schedule: str, respacing: str, T: int = 1000, rescale: bool = False) -> Any:
    from guided_diffusion.script_util import create_gaussian_diffusion

    return create_gaussian_diffusion(steps=T, learn_sigma=True, noise_schedule=schedule, timestep_respacing=respacing,
                                     rescale_timesteps=rescale)  # fmt: skip


@pytest.mark.parametrize("ddim", [False, True])
@torch.no_grad()
def test_the_whole_chain_draws_the_same(theirs, ddim):
    """classifier_sample.py and then super_res_sample.py, which reads what the first stored in 8 bits."""
    nets, folder = theirs
    y, scale = torch.tensor([7]), 2.0

    def towards(x: Tensor, t: Tensor, **_: Any) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = F.log_softmax(nets["judging"](x, t), dim=-1)[range(len(x)), y]
            return torch.autograd.grad(log_p.sum(), x)[0] * scale

    process = diffusion("linear", "ddim25" if ddim else "25")
    sample = process.ddim_sample_loop if ddim else process.p_sample_loop
    torch.manual_seed(3)
    small = sample(nets["drawing"], (1, 3, SIDE, SIDE), model_kwargs={"y": y}, cond_fn=towards, device="cpu")
    low = ((small + 1) * 127.5).clamp(0, 255).to(torch.uint8).float() / 127.5 - 1
    torch.manual_seed(4)  # theirs draws noise for the last step too, and leaves it
    large = sample(nets["enlarging"], (1, 3, 4 * SIDE, 4 * SIDE), model_kwargs={"y": y, "low_res": low}, device="cpu")

    ours = UnCLIP.from_pretrained(folder)
    assert isinstance(ours, ADM)
    s = Settings(**ours.defaults | {"steps": 25, "upsampler_steps": 25, "guidance": scale,
                                    "sampler": "ddim" if ddim else "ddpm"})  # fmt: skip
    request = ours.fit(Request(["7"], [0], settings=s))
    torch.manual_seed(3)
    x = ours.stage(ours.decoder, None, "7", request, Noise(), lambda *_: None)
    assert (x - small).abs().max() < 1e-4
    torch.manual_seed(4)
    # Of theirs: rounding to 8 bits makes 1e-6 a whole level where a value lies on the border.
    x = ours.stage(ours.upsampler, small, "7", request, Noise(), lambda *_: None)
    assert (x - large).abs().max() < 1e-4


@torch.no_grad()
def test_improved_diffusion_draws_the_same(tmp_path):
    """image_sample.py of improved-diffusion: 4000 steps, the time told on a scale of 1000, no classes."""
    unet = pytest.importorskip("guided_diffusion.unet")
    torch.manual_seed(1)
    net = unet.UNetModel(SIDE, 3, 64, 6, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 1), num_heads=4,
                         use_scale_shift_norm=True).eval()  # fmt: skip
    for p in net.parameters():
        p.data += 0.03 * torch.randn(p.shape)
    torch.save(net.state_dict(), tmp_path / "cifar.pt")
    torch.manual_seed(3)
    theirs = diffusion("cosine", "25", 4000, rescale=True).p_sample_loop(net, (1, 3, 16, 16), device="cpu")
    ours = UnCLIP.from_pretrained(tmp_path / "cifar.pt")
    ours.decoder.config = replace(ours.decoder.config, diffusion=LONG)  # as the published sizes have it
    request = ours.fit(Request(["any"], [0], settings=Settings(**ours.defaults | {"steps": 25})))
    torch.manual_seed(3)
    x = ours.stage(ours.decoder, None, "any", request, Noise(), lambda *_: None)
    assert (x - theirs).abs().max() < 1e-4
