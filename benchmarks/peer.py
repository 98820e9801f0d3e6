"""diffusers' networks of our shapes, with random weights: same grid, widths and depths, so as much work a step."""

from collections.abc import Callable
from statistics import median

import torch
from measure import in_turn, ratio, table
from torch.utils.flop_counter import FlopCounterMode

from unclip.pipeline import UnCLIP
from unclip.settings import Settings

CAPTIONS = ["", "a red fox, flat vector emoji"]  # nothing, and something: a guided pair


@torch.inference_mode()
def compare(system: UnCLIP, rounds: int) -> str:
    """One guided step of each network, ours and diffusers' in turn; the prior and decoder on a pair, for guidance."""
    steps, rows, totals = Settings(), [], [0.0, 0.0]
    stages = [("prior", steps.prior_steps, prior), ("decoder", steps.steps, decoder)]
    stages += [("upsampler", steps.upsampler_steps, upsampler)] if system.upsampler else []
    for name, calls, build in stages:
        variants = dict(zip(("ours", "theirs"), build(system), strict=True))
        work = {who: flops(call) for who, call in variants.items()}
        times = in_turn(variants, rounds)
        shown = [1e3 * median(times[who]) for who in variants]
        totals = [total + calls * t / 1e3 for total, t in zip(totals, shown, strict=True)]
        faster = ratio(times["theirs"], times["ours"])
        rows.append([name, calls, *(work[who] / 1e9 for who in variants), *shown, faster])
    rows.append(["all steps, seconds", "", "", "", *totals, totals[1] / totals[0]])
    head = ["network", "steps", "GFLOP", "diffusers'", "ms a step", "diffusers'", "times faster"]
    return table(head, rows)


def flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def prior(system: UnCLIP) -> tuple[Callable, Callable]:
    """Ours keeps the keys of caption and z_t; diffusers' computes the whole sequence at every step."""
    from diffusers import PriorTransformer

    c = system.prior.config
    peer = PriorTransformer(
        num_attention_heads=c.transformer.heads, attention_head_dim=c.transformer.width // c.transformer.heads,
        num_layers=c.transformer.depth, embedding_dim=c.embed, num_embeddings=c.context,
    ).eval()  # fmt: skip
    seen, text, z_t = system.read(CAPTIONS)
    given = system.prior.condition(text, z_t, seen, torch.tensor([True, False]))
    x, time, hidden = torch.randn(2, c.embed), torch.full((2,), 500.0), torch.randn(2, c.context, c.embed)
    return lambda: system.prior(x, time, given), lambda: peer(x, 500, z_t, hidden, seen)


def decoder(system: UnCLIP) -> tuple[Callable, Callable]:
    from diffusers import UNet2DConditionModel

    c, unet = system.decoder.config, system.decoder.config.unet
    grid = c.size // unet.patch
    attends = [i in unet.attention for i in range(len(unet.channels))]
    down = ["SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends]
    up = ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)]
    peer = UNet2DConditionModel(
        grid, unet.in_channels * unet.patch**2, unet.out_channels * unet.patch**2, block_out_channels=unet.channels,
        down_block_types=down, up_block_types=up, mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        layers_per_block=unet.depth, attention_head_dim=unet.head, cross_attention_dim=c.text.width,
        resnet_time_scale_shift="scale_shift", class_embed_type="identity",
    ).eval()  # fmt: skip
    z_t, tokens = system.read(CAPTIONS)[2], system.tokenizer.encode(CAPTIONS, c.context)[0]
    given = system.decoder.condition(z_t, tokens, torch.tensor([True, False]), torch.tensor([True, False]))
    x, time = torch.randn(2, 3, c.size, c.size).to(memory_format=torch.channels_last), torch.full((2,), 500.0)
    patches = torch.randn(2, unet.in_channels * unet.patch**2, grid, grid)
    context = torch.randn(2, c.image_tokens + c.context, c.text.width)
    emb = torch.randn(2, 4 * unet.channels[0])
    return lambda: system.decoder(x, time, given), lambda: peer(patches, 500, context, class_labels=emb)


def upsampler(system: UnCLIP) -> tuple[Callable, Callable]:
    from diffusers import UNet2DModel

    assert system.upsampler is not None
    c, unet = system.upsampler.config, system.upsampler.config.unet
    grid, many = c.size // unet.patch, len(unet.channels)
    peer = UNet2DModel(
        grid, unet.in_channels * unet.patch**2, unet.out_channels * unet.patch**2, block_out_channels=unet.channels,
        down_block_types=["ResnetDownsampleBlock2D"] * many, up_block_types=["ResnetUpsampleBlock2D"] * many,
        layers_per_block=unet.depth, add_attention=False, resnet_time_scale_shift="scale_shift",
    ).eval()  # fmt: skip
    given = system.upsampler.condition(torch.randn(1, 3, c.low, c.low))
    x, time = torch.randn(1, 3, c.size, c.size).to(memory_format=torch.channels_last), torch.full((1,), 500.0)
    patches = torch.randn(1, unet.in_channels * unet.patch**2, grid, grid)
    return lambda: system.upsampler(x, time, given), lambda: peer(patches, 500)
