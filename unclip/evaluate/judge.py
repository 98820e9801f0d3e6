"""The judge: a second CLIP, of another shape and seed, that measures pictures and is used to make none."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import sha256
from unclip.models.clip import CLIP, CLIPConfig, ImageTower
from unclip.models.tokenizer import Tokenizer
from unclip.weights import hub
from unclip.weights.checkpoint import CONFIG, WEIGHTS, load_module

SHIPPED = hub.SHIPPED.parent / "judge"
TOKENIZER = Path("tokenizer") / "tokenizer.json"
BATCH = 64


class Judge:
    """Reads pictures and captions into its own space; `space` names where distances between pictures are taken."""

    def __init__(self, clip: CLIP, tokenizer: Tokenizer, name: str, sha256: str):
        if tokenizer.vocab_size > clip.config.vocab:
            raise UnclipError(
                f"judge {name!r} knows {clip.config.vocab} tokens, its tokenizer has {tokenizer.vocab_size}; "
                "put the tokenizer that it was trained with in tokenizer/tokenizer.json beside its weights"
            )
        self.clip, self.tokenizer, self.name, self.sha256 = clip, tokenizer, name, sha256
        self.tower = copy.deepcopy(clip.image)
        assert isinstance(self.tower, ImageTower), "a judge looks through a vision Transformer"
        self.project = self.tower.project
        self.tower.project = nn.Identity()  # type: ignore[assignment]
        self.size, self.device = clip.config.image_size, clip.log_scale.device

    @classmethod
    def load(cls, source: str | Path | None, weights: Path, device: torch.device | str = "cpu") -> "Judge":
        """The judge in folder `source`, or the one to be had (see `locate`) for measuring the pipeline in `weights`.

        Raises UnclipError when it is the very CLIP that the pipeline draws with: that one would judge itself.
        """
        folder = locate(source, weights)
        found, own = sha256(folder / WEIGHTS), weights / "clip" / WEIGHTS
        if own.is_file() and sha256(own) == found:
            raise UnclipError(f"judge {str(folder)!r} is the CLIP that these weights draw with; name another one")
        clip: Any = load_module(folder, CLIPConfig, CLIP)[0]
        places = [folder / TOKENIZER, folder.parent / TOKENIZER, hub.SHIPPED / "mini" / TOKENIZER]
        tokenizer = next((p for p in places if p.is_file()), places[0])
        return cls(clip.to(device), Tokenizer.load(tokenizer), folder.name, found)

    @property
    def space(self) -> str:
        """Where distances are taken; not Inception's features, so a Fréchet distance here is no FID."""
        width = self.clip.config.image.width
        return f"{self.name}: CLIP image tower before projection, {width} numbers, sha256 {self.sha256[:12]}"

    @torch.inference_mode()
    def look(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """N pictures → features [N, width] in float64, and unit z_i [N, embed]; both on the CPU."""
        parts = [self.tower(tensor(pictures[i : i + BATCH]).to(self.device)) for i in range(0, len(pictures), BATCH)]
        features = torch.cat(parts)
        z_i = F.normalize(self.project(features).float(), dim=-1)
        return features.double().cpu(), z_i.cpu()

    @torch.inference_mode()
    def read(self, captions: Sequence[str]) -> Tensor:
        """N captions → unit z_t [N, embed] on the CPU."""
        ids, seen = self.tokenizer.encode(list(captions), self.clip.config.context)
        order = seen.sum(1).argsort()  # like lengths together: less padding
        z_t = torch.empty(len(ids), self.clip.config.embed)
        for rows in order.split(4 * BATCH):
            longest = int(seen[rows].sum(1).max())
            z_t[rows] = self.clip.encode_text(ids[rows, :longest].to(self.device))[1].cpu()
        return z_t


def tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size → [N, 3, H, W] in [−1, 1]."""
    arrays = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1


def locate(source: str | Path | None, weights: Path) -> Path:
    """The judge's folder. By default the one that comes with the package, so that scores can be compared between
    weights; where there is none, the one trained in the same run as `weights`."""
    places = [Path(source), Path(source) / "judge"] if source else [SHIPPED, weights / "judge"]
    found = next((p for p in places if (p / CONFIG).is_file()), None)
    if found is None:
        raise UnclipError(f"no judge in {str(places[0])!r}; name its folder, or train one: unclip train mini.judge")
    return found.resolve()
