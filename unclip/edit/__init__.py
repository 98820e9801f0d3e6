"""Manipulations of pictures through the pair (z_i, x_T) (DALL·E 2, section 3), and inpainting. Each is a function of
the system and of pictures, a method of `UnCLIP`, and a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unclip.edit.between import interpolate, pca_probe, text_diff
from unclip.edit.fill import fill_in, inpaint, outpaint
from unclip.edit.invert import Latents
from unclip.edit.session import Source
from unclip.edit.slerp import blend, slerp
from unclip.edit.vary import img2img, invert, reconstruct, variations
from unclip.errors import UnclipError
from unclip.settings import Generated, Request, Settings

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

__all__ = [
    "VERBS", "Latents", "apply", "blend", "fill_in", "img2img", "inpaint", "interpolate", "invert", "outpaint",
    "pca_probe", "reconstruct", "record", "slerp", "text_diff", "variations",
]  # fmt: skip
# a command → what it does
VERBS = {"variations": variations, "img2img": img2img, "interpolate": interpolate, "diff": text_diff,
         "probe": pca_probe, "inpaint": inpaint, "outpaint": outpaint, "invert": reconstruct}


def apply(system: "UnCLIP", verb: str, sources: Sequence[Source], **options: Any) -> Generated:
    """What the command `verb` does, with its pictures in their order; a system may do it in a way of its own."""
    do = getattr(system, VERBS[verb].__name__)
    return do(sources, **options) if verb == "interpolate" else do(*sources, **options)


def record(system: "UnCLIP", drawn: Generated, i: int, verb: str, sources: Sequence[str], options: dict[str, Any]
           ) -> dict[str, Any]:  # fmt: skip
    """What the file of picture `i` says: as `UnCLIP.record`, and under `edit` the manipulation.

    sources: the sha256 of each picture it began from; options: what else `apply` was given, settings apart.
    """
    settings = {name: value for name, value in drawn.params.items() if name != "negative_prompt"}
    request = Request(drawn.prompts, drawn.seeds, drawn.params["negative_prompt"], Settings(**settings))
    edit = {"verb": verb, "options": options, "sources": list(sources), "seed": drawn.seeds[0], "picture": i}
    return system.record(request, i) | {"edit": edit}


def check_verb(verb: Any) -> None:
    if not isinstance(verb, str) or verb not in VERBS:
        raise UnclipError(f"a manipulation called {verb!r} cannot be done again")
