"""DALL·E 2 itself as the last of its line: the shipped pipeline behind the same questions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unclip.evaluate.judge import tensor
from unclip.evaluate.run import draw
from unclip.lineage.system import System
from unclip.pipeline import UnCLIP
from unclip.settings import Settings


class DALLE2System(System):
    title, models, text = "DALL·E 2", "p(x | z_i, caption) p(z_i | caption)", True

    def __init__(self, device: torch.device | str = "cpu"):
        self.pipeline, self.settings = UnCLIP.from_pretrained("mini", device=device), Settings()
        self.size = self.pipeline.decoder.config.size
        self.calls = self.settings.prior_steps + self.settings.steps

    def nets(self) -> list[nn.Module]:
        return [self.pipeline.clip, self.pipeline.prior, self.pipeline.decoder]

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return tensor(draw(self.pipeline, self.settings, list(captions), list(seeds)))

    def features(self, pictures: Tensor) -> Tensor:
        """What its CLIP says of them."""
        return self.pipeline.clip.encode_image(pictures)
