"""GLIDE (Nichol et al. 2021, 2112.10741) as OpenAI published it: from a caption to 64 px, to 256 px, and to inpaint.

A folder of `base.pt`, `upsample.pt`, `base_inpaint.pt`, `upsample_inpaint.pt`, `clip_image_enc.pt`, `clip_text_enc.pt`,
or of those that are wanted, under any names: their content tells which is which.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Guide, Known, resembling, steered
from unclip.diffusion.levels import Levels, spread
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import ddim, ddpm
from unclip.edit.fill import kept as kept_at
from unclip.edit.fill import put_back
from unclip.edit.session import Session
from unclip.errors import UnclipError
from unclip.models.glide import Glide, GlideConfig
from unclip.models.glide_tokenizer import GlideTokenizer
from unclip.models.noised_clip import (
    SCALE,
    NoisedImageConfig,
    NoisedImageEncoder,
    NoisedTextConfig,
    NoisedTextEncoder,
)
from unclip.models.tokenizer import Tokenizer
from unclip.pictures import to_pil
from unclip.pipeline import STEPS, Tell
from unclip.published.chain import Chain, Found, Kept, digest, holds, one
from unclip.settings import Generated, Request
from unclip.weights import load
from unclip.weights.glide import GLIDE as NETWORKS
from unclip.weights.noised_clip import GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT

TEMPERATURE = 0.997  # of the noise that the upsampler begins with
INPAINTING = 5.0  # the guidance that was published for it


class GLIDE(Chain):
    """`UnCLIP.from_pretrained("folder of GLIDE's files")` gives one.

    base, and what inpaints: [B, 3, 64, 64] of a caption; upsample: 256 px, told the caption too. look and read: the two
    encoders of the noised CLIP.
    """

    system = "glide"
    defaults: ClassVar[dict[str, Any]] = {"steps": 100, "guidance": 3.0, "upsampler_steps": 27, "sampler": "ddpm"}

    def __init__(self, base: Glide | None, upsample: Glide | None = None, base_inpaint: Glide | None = None,
                 upsample_inpaint: Glide | None = None, look: NoisedImageEncoder | None = None,
                 read: NoisedTextEncoder | None = None, name: str = "glide", digest: str = ""):  # fmt: skip
        check_fit(base, upsample, base_inpaint, upsample_inpaint, look, read)
        self.tokenizer, self.clip_tokenizer = GlideTokenizer(), Tokenizer.clip()  # pyright: ignore[reportIncompatibleVariableOverride]
        self.look, self.caption = look, read
        self.inpainters = {"decoder": base_inpaint, "upsampler": upsample_inpaint or upsample}
        super().__init__(base or base_inpaint, upsample or upsample_inpaint, name, digest)

    @property
    def parts(self) -> dict[str, Any]:
        drawing = super().parts  # some of these may be what inpaints, too
        nets = {f"inpaint_{name}": net for name, net in self.inpainters.items() if net not in drawing.values()}
        nets |= {"guide_image": self.look, "guide_text": self.caption}
        return drawing | {name: net for name, net in nets.items() if net is not None}

    @classmethod
    def from_saved(cls, folder: Path) -> "GLIDE":
        name, digest, parts, _ = load.saved(folder, PARTS, ("decoder",))
        nets = {(bool(net.config.low), net.config.inpaint): net for net in parts.values() if isinstance(net, Glide)}
        base, large, base_inpaint, large_inpaint = (nets.get((low, i)) for i in (False, True) for low in (False, True))
        return cls(base, large, base_inpaint, large_inpaint, parts.get("guide_image"), parts.get("guide_text"), name,
                   digest)  # fmt: skip

    def idle(self) -> dict[str, str]:
        lacking = "they hold no noised CLIP (put clip_image_enc.pt and clip_text_enc.pt beside them)"
        found = super().idle() | {"clip_guidance": lacking}
        return found if self.look is None else {name: why for name, why in found.items() if name != "clip_guidance"}

    def cut(self, text: str) -> str:
        return self.tokenizer.cut(text, self.decoder.config.context)

    def stage(self, net: Glide, low: Tensor | None, prompt: str, request: Request, draw: Draw, tell: Tell,
              kept: Kept | None = None) -> Tensor:  # fmt: skip
        s, c = request.settings, net.config
        scales = [s.guidance] if low is None and s.guidance != 1 else []
        texts = [*[request.negative] * len(scales), prompt]
        tokens, seen = (v.to(self.device) for v in self.tokenizer.encode(texts, c.context))
        picture, known = kept[c.size] if kept else (None, None)
        given = net.condition(
            tokens, seen, low if low is None else quantised(low),
            None if picture is None else picture.expand(len(texts), -1, -1, -1),
            None if known is None else known[:, :1].float().expand(len(texts), -1, -1, -1),
        )  # fmt: skip
        denoise = self.bounded(steered(c.diffusion.denoiser(net), scales, **s.steering(c.diffusion.T)), s)
        if picture is not None and known is not None:
            denoise = Known(denoise, picture, known)
        x = draw((3, c.size, c.size)).to(self.device)
        if low is not None:
            step, levels = (ddpm if kept else ddim()), fast(c.diffusion, s.upsampler_steps)
            return self.sample(denoise, TEMPERATURE * x, levels, step, draw.like, tell, given)
        if s.clip_guidance:
            log_p = resembling(self.clip_look, self.z_t(prompt))
            denoise = Guide(denoise, log_p, SCALE * s.clip_guidance)
        levels = c.diffusion.spaced(s.steps, s.spacing)
        return self.sample(denoise, x, levels, STEPS[s.sampler], draw.like, tell, given)

    def clip_look(self, x: Tensor, t: Tensor) -> Tensor:
        assert self.look is not None
        return self.look(x, t)

    def z_t(self, prompt: str) -> Tensor:
        """Unit z_t [1, D] of a caption in the noised CLIP's space."""
        assert self.caption is not None
        tokens, _ = self.clip_tokenizer.encode([prompt], self.caption.config.context)
        return self.caption(tokens.to(self.device))

    @torch.no_grad()
    def fill_in(self, image: Image.Image, new: Image.Image, prompt: str, n: int, seed: int, rounds: int,
                **options: Any) -> Generated:  # fmt: skip
        """By the networks that were trained to inpaint; they see what is known, so each level is passed but once."""
        nets = {name: net for name, net in self.inpainters.items() if net is not None}
        if "decoder" not in nets:
            raise UnclipError(f"the weights {self.name!r} hold no network to inpaint; put base_inpaint.pt beside them")
        small = nets["decoder"].config.size
        usual: dict[str, Any] = {"guidance": INPAINTING if prompt else 1.0,
                                 "size": small if max(image.size) <= small else None}  # fmt: skip
        session = Session(self, [prompt] * n, seed, **usual | options)
        nets = {name: net for name, net in nets.items() if net.config.size <= (session.s.size or small)}
        for net in nets.values() if self.shelf is None else ():
            net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        kept, cells = {}, None
        for net in nets.values():
            x0, known = (v.to(self.device) for v in kept_at(image, new, net.config.size))
            cells = known if cells is None else cells  # the large mask is the small one enlarged
            times = net.config.size // cells.shape[-1]
            kept[net.config.size] = x0, cells.repeat_interleave(times, 2).repeat_interleave(times, 3)
        drawn = [put_back(to_pil(x)[0], image, new)
                 for x in self.paint(session.request, nets, session.progress, kept)]  # fmt: skip
        request = session.request
        return Generated(drawn, request.seeds, request.prompts, torch.empty(len(drawn), 0), request.params)


SYSTEM = GLIDE
PARTS: load.Kinds = {
    **dict.fromkeys(("decoder", "upsampler_256", "inpaint_decoder", "inpaint_upsampler"), (GlideConfig, Glide)),
    "guide_image": (NoisedImageConfig, NoisedImageEncoder), "guide_text": (NoisedTextConfig, NoisedTextEncoder),
}  # fmt: skip


def quantised(x: Tensor) -> Tensor:
    """As it would be read from a picture's file."""
    return ((x + 1) * 127.5).round() / 127.5 - 1


def fast(process: Process, steps: int) -> Levels:
    """27 steps are "fast27" of GLIDE's code: dense where pictures become sharp, and not quite beginning at the top."""
    if steps != 27:
        return process.spaced(steps)
    return process.levels().spaced({*spread(process.T, 10, 10, 3, 2, 2)} - {process.T} | {process.T - 2})


def check_fit(base: Glide | None, upsample: Glide | None, base_inpaint: Glide | None, upsample_inpaint: Glide | None,
              look: NoisedImageEncoder | None, read: NoisedTextEncoder | None) -> None:  # fmt: skip
    first = base or base_inpaint
    if first is None:
        raise UnclipError("GLIDE's upsampler has nothing to enlarge: put base.pt beside it")
    if (look is None) != (read is None):
        lacking = "clip_text_enc.pt" if read is None else "clip_image_enc.pt"
        raise UnclipError(f"one half of the noised CLIP is missing: put {lacking} beside the other")
    small = {"base": base, "base, inpaint": base_inpaint}
    large = {"upsample": upsample, "upsample, inpaint": upsample_inpaint}
    sizes = {name: net.config.size for name, net in small.items() if net}
    sizes |= {name: net.config.low for name, net in large.items() if net}
    agree: Mapping[str, dict[str, int]] = {
        "small pictures": sizes | ({"noised CLIP": look.config.image_size} if look else {}),
        "embedding spaces": {"pictures": look.config.embed, "captions": read.config.embed} if look and read else {},
    }
    for what, values in agree.items():
        if len(set(values.values())) > 1:
            raise UnclipError(f"these parts have different {what}: {values}; use parts that were published together")


def found_in(path: Path) -> bool:
    return holds(path, (NETWORKS,))


def from_folder(path: Path) -> GLIDE:
    """Read a folder of GLIDE's files, or the file of one network that draws."""
    found = Found(path, (NETWORKS, GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT))

    def kind(p: Path) -> tuple[str, bool, bool]:
        c = found[p].config
        return found[p].family.name, bool(getattr(c, "low", 0)), getattr(c, "inpaint", False)

    kinds = {(NETWORKS.name, low, inpaint): f"GLIDE's {'upsampler' if low else 'base'}{' to inpaint' * inpaint}"
             for inpaint in (False, True) for low in (False, True)}  # fmt: skip
    kinds |= {(family.name, False, False): family.name for family in (GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT)}
    paths = [one([p for p in found if kind(p) == k], what) for k, what in kinds.items()]
    return GLIDE(*map(found.read, paths), name=path.stem, digest=digest(*paths))
