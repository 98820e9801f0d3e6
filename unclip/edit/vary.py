"""Manipulations that draw a picture anew: as it is or nearly so, or as a caption says."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from unclip.diffusion.levels import mix
from unclip.diffusion.samplers import ddim, walk
from unclip.edit.invert import Latents
from unclip.edit.session import CALLS, Session, Source
from unclip.errors import UnclipError
from unclip.settings import Generated, check_whole

if TYPE_CHECKING:
    from unclip.pipeline import Tell, UnCLIP


def invert(system: "UnCLIP", source: Source, calls: int = CALLS, **options: Any) -> Latents:
    """The pair (z_i, x_T) of a picture: z_i by CLIP, x_T by DDIM backwards (section 3).

    calls of the network a step: 1 is the published way, more solve each step's equation.
    """
    check_whole("calls", calls, 1, 100)
    return Session(system, [""], **options).invert([source], calls)[0]


def reconstruct(system: "UnCLIP", source: Source, calls: int = CALLS, seed: int = 0, **options: Any) -> Generated:
    """The picture of a pair (z_i, x_T), or of that of a picture, by DDIM with the steps and guidance that found it."""
    check_whole("calls", calls, 1, 100)
    session = Session(system, [""], seed, **options)
    (at,) = session.invert([source], calls)
    return session.draw(lambda i, tell: (session.descend(i, at, tell), at.z_i))


def variations(
    system: "UnCLIP", source: Source, n: int = 4, eta: float = 1.0, seed: int = 0, **options: Any
) -> Generated:
    """`n` pictures with the z_i and x_T of `source`, by DDIM with noise of strength `eta` (section 3.1).

    eta 0 gives the picture back; 1 keeps little but z_i. Raises UnclipError for an eta outside [0, 1].
    """
    check_share("eta", eta)
    session = Session(system, [""] * n, seed, **options)
    (at,) = session.invert([source])
    return session.draw(lambda i, tell: (session.descend(i, at, tell, ddim(eta)), at.z_i))


def img2img(system: "UnCLIP", source: Source, prompt: str, strength: float = 0.6, n: int = 1, seed: int = 0,
            **options: Any) -> Generated:  # fmt: skip
    """`n` pictures of `prompt` that begin as `source`: noised up to `strength` of the levels, then denoised for the
    caption and the z_i that the prior draws (SDEdit 2108.01073). 0 gives the picture back, 1 takes nothing of it."""
    check_share("strength", strength)
    if not prompt.strip():
        raise UnclipError("the prompt is empty; say what the picture should show")
    session = Session(system, [prompt] * n, seed, **dict[str, Any](guidance=2.0) | options)
    process, x0 = system.decoder.config.diffusion, system.enter(session.load(source))
    wanted = [at.z_i for at in session.imagine([prompt] * n)]
    rows = round(strength * process.T)
    steps = min(session.s.steps, rows)

    def paint(i: int, tell: "Tell") -> tuple[Tensor, Tensor]:
        if not rows:
            return x0, wanted[i]
        levels, noise = process.spaced(steps, session.s.spacing, rows), session.noise(i, "decoder")
        x = mix((levels.alpha[-1], x0), (levels.sigma[-1], noise.like(x0)))
        denoise, given = system.guided(wanted[i], prompt, session.request.negative, session.s)
        walking = walk(denoise, x, levels.down(), ddim(), noise.like, given=given)
        return system.follow(walking, steps, tell), wanted[i]

    return session.draw(paint, steps)


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UnclipError(f"{name} is {value}; it must be from 0 to 1")
