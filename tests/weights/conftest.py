"""Public checkpoints without their weights: full-size schemas, and small ones filled by a recipe."""

import importlib.machinery
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unclip.models.tokenizer import Tokenizer
from unclip.weights.family import Schema, Spec
from unclip.weights.load import fill
from unclip.weights.match import Match

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def torchvision(monkeypatch) -> Iterator[None]:
    for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
        fake = MagicMock()
        fake.__spec__, fake.__path__ = importlib.machinery.ModuleSpec(f"torchvision{name}", None), []
        fake.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (nn.Module,), {})
        monkeypatch.setitem(sys.modules, f"torchvision{name}", fake)
    monkeypatch.setitem(sys.modules, "transformers", None)  # it would remember what it found here
    yield
    for name in [name for name in sys.modules if name.startswith("open_clip")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def schemas() -> dict[str, dict]:
    """name → {"params": their number, "keys": {key: [shape, dtype]}}: each original model, built on the meta device."""
    return json.loads(lzma.decompress((GOLDEN / "schemas.json.xz").read_bytes()))


@pytest.fixture
def schema(schemas) -> Callable[[str], Schema]:
    def make(name: str) -> Schema:
        return Schema({key: Spec(tuple(shape), dtype) for key, (shape, dtype) in schemas[name]["keys"].items()})

    return make


@pytest.fixture
def golden() -> Callable[[str], dict[str, torch.Tensor]]:
    """Inputs and outputs of an original at a tiny size, by name."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(GOLDEN / f"{name}.npz") as f:
            return {key: torch.from_numpy(f[key]) for key in f.files}

    return load


@pytest.fixture
def filled() -> Callable[[Match], torch.nn.Module]:
    """A matched network with the weights that the golden outputs were computed with."""
    return lambda m: fill(m, lambda key: weights(key, m.wanted[key].shape))


@pytest.fixture
def recipe() -> Callable[[str, tuple[int, ...]], torch.Tensor]:
    """Key and shape → the weights that the golden outputs were computed with."""
    return weights


@pytest.fixture
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture
def clip_tokenizer(tmp_path) -> Any:
    """CLIP's tokenizer as transformers has it, made of our own vocabulary."""
    model, folder = json.loads(Tokenizer.clip().bpe.to_str())["model"], tmp_path / "bpe"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(folder, model_max_length=77)


class Replay(SimpleNamespace):
    """The noise of one generator in the order in which it is asked for."""

    def __call__(self, shape: Any) -> torch.Tensor:
        return torch.randn((1, *shape), generator=self.generators[0])

    def like(self, x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=self.generators[0])


@pytest.fixture
def replay() -> Callable[[int], Replay]:
    """A seed → the noise that a pipeline of diffusers draws from the generator of that seed, as a `Draw`."""
    return lambda seed: Replay(generators=[torch.Generator().manual_seed(seed)])


def weights(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """For each key its own random numbers."""
    if not shape:
        return torch.tensor(0.5)
    if key.endswith("running_var"):
        return torch.ones(shape)
    w = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape) * 0.08
    return torch.from_numpy(w.astype(np.float32)) + (key.endswith("weight") and len(shape) == 1)


@pytest.fixture
def same_tensors() -> Callable[..., None]:
    """Whether the networks in folders of one pipeline are those of another, key for key: {theirs: again}."""

    def check(folders: dict[Path, Path]) -> None:
        for theirs, again in folders.items():
            true, found = (load_file(next(folder.glob("*.safetensors"))) for folder in (theirs, again))
            assert true.keys() == found.keys()
            assert all(torch.equal(found[key], w) for key, w in true.items() if ".pooler." not in key), theirs.name

    return check
