"""Manipulations along great circles: between pictures, towards a caption, and through fewer and fewer components of z_i
(DALL·E 2, section 3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.edit.invert import Latents
from unclip.edit.session import Session, Source
from unclip.edit.slerp import blend, slerp
from unclip.errors import UnclipError
from unclip.settings import Generated, check_whole

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP


def interpolate(
    system: "UnCLIP",
    sources: Sequence[Source],
    texts: Sequence[str] = (),
    frames: int = 7,
    weights: Sequence[float] | None = None,
    x_T: str = "slerp",
    seed: int = 0,
    **options: Any,
) -> Generated:
    """Pictures on the way from each of `sources` to the next, then to the `texts`; or with `weights` their mixture.

    z_i is slerped, for a text that which the prior draws; x_T too, or with x_T="fixed" it stays the first one's. The
    ends are the reconstructions (section 3.2). Raises UnclipError for fewer than two things, and bad weights.
    """
    things = len(sources) + len(texts)
    if things < 2:
        raise UnclipError("an interpolation needs two pictures, or a picture and a text; one thing is given")
    if x_T not in ("slerp", "fixed"):
        raise UnclipError(f"x_T is {x_T!r}; choose slerp, or fixed for that of the first picture")
    if weights is None:
        check_whole("frames", frames, 2, 1000)
        places = [i * (things - 1) / (frames - 1) for i in range(frames)]
        shares = [[max(0.0, 1 - abs(place - k)) for k in range(things)] for place in places]
    else:
        if len(weights) != things or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise UnclipError(f"weights are {list(weights)}; give {things} of them, none below 0, not all 0")
        shares = [[w / sum(weights) for w in weights]]
    session = Session(system, [""] * len(shares), seed, frames=True, **options)
    ends = session.invert(sources) + session.imagine(texts)

    def paint(i: int, tell: Any) -> tuple[Tensor, Tensor]:
        z_i = blend([end.z_i for end in ends], shares[i])
        x = blend([end.x_T for end in ends], shares[i]) if x_T == "slerp" else ends[0].x_T
        return session.descend(i, Latents(z_i, x), tell), z_i

    return session.draw(paint, captions=[", ".join(texts)] * len(shares))


def text_diff(
    system: "UnCLIP",
    source: Source,
    text: str,
    base: str | None = None,
    theta: float = 0.35,
    frames: int = 7,
    by: str = "prior",
    seed: int = 0,
    **options: Any,
) -> Generated:
    """Pictures on the way from what `source` shows to what `text` says: z_i turned by up to `theta` of the way towards
    z_d, x_T as it was (section 3.3).

    by="clip" is the paper's z_d = normalise(z_t − z_t0), z_t0 of the caption `base` or an empty one. In a small CLIP's
    space it leads where no picture is. by="prior" takes, for each z_t, the mean z_i that the prior draws instead, and
    without a `base` takes nothing off. Raises UnclipError for a theta outside [0, 1].
    """
    if not 0 <= theta <= 1:
        raise UnclipError(f"theta is {theta}; it must be from 0, the picture itself, to 1; 0.25 to 0.5 is usual")
    if by not in ("prior", "clip"):
        raise UnclipError(f"by is {by!r}; choose prior or clip")
    if not text.strip():
        raise UnclipError("the text is empty; say what the picture should become")
    check_whole("frames", frames, 1, 1000)
    angles = [theta * i / (frames - 1) for i in range(frames)] if frames > 1 else [theta]
    session = Session(system, [""] * frames, seed, frames=True, **options)
    (start,) = session.invert([source])
    if by == "clip":
        towards, away = F.normalize(system.read([text, base or ""])[2], dim=-1).split(1)
    else:
        towards = session.typical(text)
        away = session.typical(base) if base else torch.zeros_like(towards)
    length = start.z_i.norm(dim=-1, keepdim=True)  # 1, but not in every CLIP
    z_d = length * F.normalize(towards - away, dim=-1)

    def paint(i: int, tell: Any) -> tuple[Tensor, Tensor]:
        z_i = slerp(start.z_i, z_d, angles[i])
        return session.descend(i, Latents(z_i, start.x_T), tell), z_i

    return session.draw(paint, captions=[f"{text} (theta {angle:.3g})" for angle in angles])


def pca_probe(system: "UnCLIP", source: Source, embeddings: Tensor, dims: Sequence[int] = (5, 10, 20, 40, 80, 160),
              seed: int = 0, **options: Any) -> Generated:  # fmt: skip
    """Pictures of z_i with only its first components, more and more of them; x_T stays (section 3.3's probe, figure 7).

    embeddings: z_i [N, D] of many other pictures, whose principal components are taken.
    """
    mean, width = embeddings.float().mean(dim=0), min(embeddings.shape)
    for count in dims:
        check_whole("dims", count, 0, width)
    axes = torch.linalg.svd(embeddings.float() - mean, full_matrices=False).Vh  # by falling variance
    session = Session(system, [""] * len(dims), seed, frames=True, **options)
    (start,) = session.invert([source])
    length = start.z_i.norm(dim=-1, keepdim=True)

    def paint(i: int, tell: Any) -> tuple[Tensor, Tensor]:
        kept = axes[: dims[i]].to(start.z_i)
        z_i = mean.to(start.z_i) + (start.z_i - mean.to(start.z_i)) @ kept.T @ kept
        z_i = length * F.normalize(z_i, dim=-1)
        return session.descend(i, Latents(z_i, start.x_T), tell), z_i

    return session.draw(paint)
