"""A corpus whose pictures say what they are, a judge that can read that, and a tiny pipeline."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from unclip.data import shards
from unclip.evaluate.alignment import Split
from unclip.evaluate.judge import tensor
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.tokenizer import Tokenizer
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP
from unclip.weights.checkpoint import save_module

SIZE, CONCEPTS, STYLES = 16, 20, 16


def paint(concept: int, style: int) -> Image.Image:
    """A flat picture: its red tells the concept, its green the style."""
    return Image.new("RGB", (SIZE, SIZE), (12 * concept, 15 * style, 90))


class Oracle:
    """A judge that is always right: the embedding is the concept beside the style."""

    def look(self, pictures):
        corner = ((tensor(pictures)[:, :, 0, 0] + 1) * 127.5).round()
        z = self.embed((corner[:, 0] / 12).round().long(), (corner[:, 1] / 15).round().long())
        return torch.cat([z.double(), corner.double() / 255], dim=1), z

    def read(self, captions):
        pairs = [c.removeprefix("thing ").split(", style ") for c in captions]
        return self.embed(*torch.tensor([[int(a), int(b)] for a, b in pairs]).T)

    @staticmethod
    def embed(concept, style):
        parts = [torch.eye(CONCEPTS)[concept], torch.eye(STYLES)[style]]
        return torch.cat(parts, dim=1) / 2**0.5


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split, styles in (("val", STYLES), ("compose", 4)):
        samples = []
        for concept in range(CONCEPTS):
            for style in range(styles):
                data = io.BytesIO()
                paint(concept, style).save(data, "PNG")
                label, manner = f"thing {concept}", f"style {style}"
                meta = {"label": label, "style": manner, "concept": label, "core": True}
                meta["caption"] = f"{label}, {manner}"
                samples.append(shards.Sample(f"{split}-{concept}-{style}", data.getvalue(), meta))
        shards.write(folder / str(SIZE) / split, samples)
    return folder


@pytest.fixture(scope="session")
def val(corpus) -> Split:
    return Split.load(corpus, SIZE, "val")


TOWER = TransformerConfig(width=16, depth=1, heads=2)


def clip(seed: int, embed: int = 16) -> CLIP:
    torch.manual_seed(seed)
    return CLIP(CLIPConfig(embed, SIZE, 8, TOWER, TOWER, vocab=300, context=32)).eval()


@pytest.fixture(scope="session", autouse=True)
def nothing_shipped():
    """The package's own judge looks at 64 px; these pipelines draw less, and bring a judge of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unclip.evaluate.judge.SHIPPED", Path("nowhere"))
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A pipeline folder of random weights, with a judge of other random weights as a run leaves it."""
    folder = tmp_path_factory.mktemp("run") / "model"
    tokenizer = Tokenizer.train(["thing 1, style 2"], 300)
    net = clip(0)
    decoder = DecoderConfig(
        SIZE, 16, 300, 32, 2, TOWER, UNetConfig(out_channels=6, channels=(8,), depth=1, attention=(0,), head=8,
                                                      context=16, patch=4)
    )  # fmt: skip
    prior = Prior(PriorConfig(16, 16, 32, TOWER))
    UnCLIP(tokenizer, net, prior.eval(), Decoder(decoder).eval(), None, "tiny").save_pretrained(folder)
    judge = clip(1, embed=12)
    save_module(folder / "judge", judge.config, judge.state_dict(), torch.float16, {})
    return folder


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def drawn():
    """Pictures for a split's captions, by a rule that turns (concept, style) into what is drawn."""

    def draw(split, rule):
        return [paint(*rule(int(m["label"].split()[1]), int(m["style"].split()[1]))) for m in split.metas]

    return draw
