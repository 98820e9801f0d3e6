"""unclip: DALL·E 2 in the open. The names below are loaded when first used, so `import unclip` is instant."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for editors and type checkers
    from unclip.cascade import upscale as upscale
    from unclip.diffusion.denoiser import Denoiser as Denoiser
    from unclip.diffusion.guidance import CFG as CFG
    from unclip.diffusion.levels import Levels as Levels
    from unclip.diffusion.samplers import ddim as ddim
    from unclip.diffusion.samplers import ddpm as ddpm
    from unclip.diffusion.samplers import dpmpp_2m as dpmpp_2m
    from unclip.diffusion.samplers import walk as walk
    from unclip.errors import UnclipError as UnclipError
    from unclip.models.clip import CLIP as CLIP
    from unclip.models.decoder import Decoder as Decoder
    from unclip.models.prior import Prior as Prior
    from unclip.models.tokenizer import Tokenizer as Tokenizer
    from unclip.models.upsampler import Upsampler as Upsampler
    from unclip.pipeline import UnCLIP as UnCLIP
    from unclip.weights.load import load as load

__version__ = "0.1.0"

HOME = {
    "UnCLIP": "unclip.pipeline",
    "CLIP": "unclip.models.clip",
    "Prior": "unclip.models.prior",
    "Decoder": "unclip.models.decoder",
    "Upsampler": "unclip.models.upsampler",
    "Tokenizer": "unclip.models.tokenizer",
    "Levels": "unclip.diffusion.levels",
    "Denoiser": "unclip.diffusion.denoiser",
    "CFG": "unclip.diffusion.guidance",
    "walk": "unclip.diffusion.samplers",
    "ddpm": "unclip.diffusion.samplers",
    "ddim": "unclip.diffusion.samplers",
    "dpmpp_2m": "unclip.diffusion.samplers",
    "load": "unclip.weights.load",
    "UnclipError": "unclip.errors",
    "upscale": "unclip.cascade",
}


def __getattr__(name: str) -> Any:
    if name in HOME:
        return getattr(import_module(HOME[name]), name)
    raise AttributeError(f"module 'unclip' has no attribute {name!r}; it offers {', '.join(HOME)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HOME])
