"""What all manipulations share: pictures in, settings and seeds, the walks between picture and x_T, pictures out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import pictures
from unclip.diffusion.draw import Draw
from unclip.diffusion.samplers import Step, ddim, walk
from unclip.edit.invert import Latents, up
from unclip.errors import UnclipError
from unclip.settings import Callback, Generated, Reporter, Request, Settings, check_text

if TYPE_CHECKING:
    from unclip.pipeline import Tell, UnCLIP

Source = str | Path | Image.Image | Latents  # a picture file, an open picture, or what `invert` made of one
Paint = Callable[[int, "Tell"], tuple[Tensor, Tensor]]
CALLS = 4  # of the network for a step of inversion


def open_picture(source: Source) -> Image.Image:
    """RGB or RGBA of any size."""
    if isinstance(source, Latents):
        raise UnclipError("z_i and x_T have no pixels; this needs the picture itself")
    return pictures.read(source)


class Session:
    """One call of a manipulation: picture i has the caption prompts[i], '' being none, and the seed `seed` + i; frames
    have one seed for all."""

    def __init__(
        self,
        system: "UnCLIP",
        prompts: Sequence[str],
        seed: int = 0,
        negative_prompt: str = "",
        callback: Callback | None = None,
        progress: bool = True,
        frames: bool = False,
        **settings: Any,
    ):
        for prompt in prompts:
            check_text(prompt)
        settings = system.defaults | {"guidance": 1.0} | settings
        request = Request.of("any", len(prompts), seed, negative_prompt, callback, settings)
        if request.settings.fast:
            raise UnclipError("a few-step student cannot go back to x_T, nor part of the way; leave out fast")
        seeds = request.seeds[:1] * len(prompts) if frames else request.seeds
        self.system, self.progress = system, progress
        self.request = system.fit(replace(request, prompts=list(prompts), seeds=seeds))
        self.levels = system.decoder.config.diffusion.spaced(self.s.steps, self.s.spacing)

    @property
    def s(self) -> Settings:
        return self.request.settings

    @property
    def side(self) -> int:
        """Pixels of the pictures that the decoder draws."""
        return self.system.factor * self.system.shape(self.s)[-1]

    def noise(self, i: int, stage: str) -> Draw:
        return Draw([self.request.seeds[i]], stage)

    def report(self, images: int, steps: int) -> Reporter:
        return Reporter(self.request.callback, self.progress, images, steps)

    def load(self, source: Source) -> Tensor:
        """A picture → [1, 3, S, S] in [−1, 1], of the decoder's size, on white."""
        image = pictures.square(pictures.flat(open_picture(source)), self.side)
        return pictures.to_tensor(image).to(self.system.device)

    @torch.inference_mode()
    def invert(self, sources: Sequence[Source], calls: int = CALLS) -> list[Latents]:
        """Each picture's (z_i, x_T)."""
        found, steps = [], len(self.levels) - 2
        with self.report(len(sources), steps) as report:
            for i, source in enumerate(sources):
                if isinstance(source, Latents):
                    found.append(source.to(self.system.device))
                    continue
                x = self.load(source)
                z_i = self.system.embed(x)
                denoise, given = self.system.guided(z_i, "", self.request.negative, self.s)
                x = self.system.enter(x) * self.levels.alpha[1].to(x)
                walking = up(denoise, x, self.levels, calls, given=given)
                found.append(Latents(z_i, self.system.follow(walking, steps, partial(report, i, "invert"))))
        return found

    @torch.inference_mode()
    def imagine(self, texts: Sequence[str]) -> list[Latents]:
        """What the prior draws for each text, and plain noise: by the seed of the first picture, and those after it."""
        found, shape = [], self.system.shape(self.s)
        if not all(text.strip() for text in texts):
            raise UnclipError("a text is empty; say what the picture should show")
        with self.report(len(texts), self.s.prior_steps) as report:
            for i, text in enumerate(texts):
                noise, tell = partial(Draw, [self.request.seeds[0] + i]), partial(report, i, "prior")
                z_i = self.system.sample_prior(text, self.request.negative, noise("prior"), self.s, tell)
                found.append(Latents(z_i, noise("decoder")(shape).to(z_i.device)))
        return found

    def typical(self, text: str, draws: int = 4) -> Tensor:
        """The mean z_i [1, D] of what the prior draws for a text."""
        return F.normalize(torch.cat([at.z_i for at in self.imagine([text] * draws)]).mean(0, keepdim=True), dim=-1)

    def descend(self, i: int, at: Latents, tell: "Tell", step: Step | None = None) -> Tensor:
        """From x_T to what the decoder draws: the way that `invert` came, taken down."""
        denoise, given = self.system.guided(at.z_i, self.request.prompts[i], self.request.negative, self.s)
        path = list(self.levels.down())[:-1]
        walking = walk(denoise, at.x_T, path, step or ddim(), self.noise(i, "decoder").like, given=given)
        return self.system.follow(walking, len(path), tell) / self.levels.alpha[1].to(at.x_T)

    @torch.inference_mode()
    def draw(self, paint: Paint, steps: int | None = None, captions: Sequence[str] | None = None) -> Generated:
        """Picture i is what `paint(i, tell)` → (x as the decoder draws it, z_i [1, D]) gives, enlarged if asked for."""
        assert self.s.size is not None
        cascade, images, embeddings = self.system.cascade(self.s.size), [], []
        steps = (steps or len(self.levels) - 2) + sum(getattr(self.s, f"{name}_steps") for name in cascade)
        with self.report(len(self.request.seeds), steps) as report:
            for i in range(len(self.request.seeds)):
                x, z_i = paint(i, partial(report, i, "decoder"))
                x = self.system.leave(x)
                for name, net in cascade.items():
                    x = self.system.upsample(x, self.noise(i, name), self.s, partial(report, i, name), net)
                images += pictures.to_pil(x)
                embeddings.append(z_i[0].float().cpu())
        prompts = list(captions or self.request.prompts)
        return Generated(images, self.request.seeds, prompts, torch.stack(embeddings), self.request.params)
