"""Normalisations of pictures [B, C, H, W]."""

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 1803.08494) in 32 groups, or as many as divide a narrow network's channels.

    On a CPU torch's own kernel is slow where channels lie last, seven times over in bfloat16, and its sums over one
    large picture depend on the number of threads. Sums of each channel by themselves are quick and do not.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__(next(g for g in (32, 24, 16, 8, 4, 2, 1) if channels % g == 0), channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.is_contiguous()):
            return super().forward(x)
        return Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # pyright: ignore[reportReturnType]


class Normalise(torch.autograd.Function):
    """x [B, C, H, W], weight [C], bias [C] → (x − mean) / deviation · weight + bias, by groups of channels.

    Everything that is not as large as x is kept in float32, [B, groups, C / groups].
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        mean, r = moments(x, groups, eps)
        ctx.save_for_backward(x, weight, mean, r)
        ctx.groups, ctx.eps = groups, eps
        scale = r * weight.view(1, groups, -1)
        return combine(bias.view(1, groups, -1) - mean * scale, (x, scale))

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x is a combination of g, x and 1, with a number each for a channel of a picture."""
        x, weight, mean, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is differentiated in its turn: the moments are functions of x again
            mean, r = moments(x, ctx.groups, ctx.eps)
        n, w = x[0].numel() // ctx.groups, weight.view(1, ctx.groups, -1)
        total = sums(g, ctx.groups)
        product = r * (sums(g * x, ctx.groups) - mean * total)
        along = r.square() * (w * product).sum(2, keepdim=True) / n
        constant = mean * along - r * (w * total).sum(2, keepdim=True) / n
        grad = combine(constant.expand_as(total), (x, -along.expand_as(total)), (g, r * w))
        return grad, product.sum(0).flatten().to(weight.dtype), total.sum(0).flatten().to(weight.dtype), None, None


def sums(x: Tensor, groups: int) -> Tensor:
    """Σ over each channel of x [B, C, H, W] → [B, groups, C / groups]."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1, dtype=wide).view(len(x), groups, -1)


def moments(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of each group, [B, groups, 1]."""
    n = x[0].numel() // groups
    mean, square = (sums(v, groups).sum(2, keepdim=True) / n for v in (x, x * x))
    return mean, ((square - mean.square()).clamp(min=0) + eps).rsqrt()


def combine(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """constant + Σ x · factor: x [B, C, H, W], the others [B, groups, C / groups]."""
    x = terms[0][0]
    out = constant.reshape(len(x), -1, 1, 1).to(x.dtype)
    for x, factor in terms:
        out = torch.addcmul(out, x, factor.reshape(len(x), -1, 1, 1).to(x.dtype))
    return out


class PixelNorm(nn.LayerNorm):
    """Normalises each position of [B, C, H, W] over its channels alone: a part comes out as it does in the whole."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
