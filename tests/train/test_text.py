"""More words for the text tower: it learns them, keeps what it knew, and nothing else changes."""

import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from unclip.data import captions
from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.tokenizer import Tokenizer
from unclip.train.loop import train
from unclip.train.stages.encoders import TOKENIZER, tokens
from unclip.train.stages.text import TextRecipe, apart
from unclip.train.state import checkpoints
from unclip.weights.checkpoint import load_module

CPU = torch.device("cpu")
NAMES = {"red": ["scarlet"], "green": ["emerald", "jade"], "blue": ["azure"]}


@pytest.fixture
def trained(data, recipes, tmp_path):
    """A folder of weights, and beside it the corpus, which knows other names."""
    (tmp_path / "corpus").mkdir()
    for size in ("16", "64"):
        (tmp_path / "corpus" / size).symlink_to(data / size)
    (tmp_path / "corpus" / "words.json").write_text(json.dumps({"en": NAMES, "zh": {"red": ["红"]}}))
    for name in ("clip", "prior"):
        train(recipes[name], data, tmp_path / "first", CPU)
    return tmp_path / "first" / "model"


@pytest.fixture
def recipe(recipes) -> TextRecipe:
    clip = recipes["clip"]
    config = replace(clip.train, steps=60, batch=16, lr=1e-2, ema=0.9, save_every=60, sample_every=30)
    return TextRecipe("text", clip.model, config, clip.data)


def meant(model, lines):
    """z_t of captions."""
    clip = load_module(model / "clip", CLIPConfig, CLIP)[0]
    return clip.encode_text(tokens(Tokenizer.load(model / TOKENIZER), lines, clip.config.context))[1]


def test_new_words_come_to_mean_old_ones_which_stay(recipe, trained, tmp_path):
    assert train(recipe, tmp_path / "corpus", tmp_path / "run", CPU, start=trained)
    model = tmp_path / "run" / "model"
    old = ["a red, dot", "a green, bar", "a blue, square", "a black, dot"]
    new = ["a scarlet, dot", "an emerald, bar", "an azure, square", "a black, dot"]
    before, was, now = meant(trained, old), meant(trained, new), meant(model, new)
    assert (1 - cosine_similarity(was, before))[:3].mean() > 4 * (1 - cosine_similarity(now, before))[:3].mean()
    assert cosine_similarity(meant(model, old), before).min() > 0.98
    first, last = (load_file(m / "clip" / "model.safetensors") for m in (trained, model))
    assert first.keys() == last.keys()
    assert all(torch.equal(v, last[k]) != k.startswith("text.") for k, v in first.items() if v.numel() > 64)
    for part in ("prior/model.safetensors", "tokenizer/tokenizer.json"):
        assert (model / part).read_bytes() == (trained / part).read_bytes()
    logged = [json.loads(line) for line in (tmp_path / "run" / "text" / "log.jsonl").read_text().splitlines()]
    assert {"val_recall", "val_kept", "compose_recall", "compose_kept"} <= {key for line in logged for key in line}


def test_every_english_name_comes_up_as_often(recipe, trained, tmp_path):
    """However many a label has, and whether a dictionary gave it or an encoder."""
    words = {"en": {"red": ["scarlet"]}, "near": {"green": [f"leaf {i}" for i in range(9)], "unknown": ["x"]}, "zh": {}}
    (tmp_path / "corpus" / "words.json").write_text(json.dumps(words))
    recipe = replace(recipe, named=1.0, old=0.0)
    stage = recipe.stage(tmp_path / "corpus", trained, CPU)
    rng = random.Random(0)
    said = [stage.pair(stage.corpus.meta[0], rng) for _ in range(2000)]
    assert 100 < sum("scarlet" in new for new, _ in said) < 230  # a tenth of 0.8 of them
    assert all("green" in old for new, old in said if "leaf" in new)


def test_resuming_is_exact(recipe, trained, tmp_path, power_cut):
    """Who is imitated is in the checkpoint: by then the folder of weights holds the tower that learns."""
    recipe = replace(recipe, train=replace(recipe.train, steps=8, save_every=3))
    train(recipe, tmp_path / "corpus", tmp_path / "whole", CPU, start=trained)
    with power_cut(5):
        train(recipe, tmp_path / "corpus", tmp_path / "broken", CPU, start=trained)
    train(recipe, tmp_path / "corpus", tmp_path / "broken", CPU, start=trained)
    whole, broken = (load_file(checkpoints(tmp_path / run / "text")[0] / "state.safetensors")
                     for run in ("whole", "broken"))  # fmt: skip
    assert whole.keys() == broken.keys()
    assert all(torch.equal(v, broken[k]) for k, v in whole.items())


def test_what_is_lacking_is_named(recipe, trained, data, tmp_path):
    with pytest.raises(UnclipError, match=r"unclip data words"):
        train(recipe, data, tmp_path / "run", CPU, start=trained)
    wider = replace(recipe, model=replace(recipe.model, embed=32))
    with pytest.raises(UnclipError, match="other settings of the model"):
        train(wider, tmp_path / "corpus", tmp_path / "run2", CPU, start=trained)


def test_tokens_are_compared_from_the_end():
    one = torch.tensor([[9.0, 1, 2, 3, 0], [4, 5, 0, 0, 0]])[..., None]
    other = torch.tensor([[1.0, 2, 5], [7, 4, 6]])[..., None]
    found = apart(one, other, torch.tensor([4, 2]), torch.tensor([3, 3]))
    assert found.tolist() == [pytest.approx(4 / 3), pytest.approx(0.5)]


def test_a_paraphrase_names_the_same_style():
    meta = {"label": "dog", "style": "blob emoji", "colour": "red"}
    rng = random.Random(0)
    pairs = [captions.paraphrase(meta, {"dog": ["puppy", "hound"], **NAMES}, ["狗", "小狗"], rng) for _ in range(400)]
    news, olds = ({pair[i] for pair in pairs} for i in range(2))
    assert olds == {f"{a}{c}dog, blob emoji" for a in ("", "a ") for c in ("", "red ")}
    assert {"a puppy, blob emoji", "hound, blob emoji", "狗，圆团表情", "a scarlet puppy, blob emoji"} <= news
    assert any(new.startswith("一") and "红色的小狗" in new for new in news)
    for new, old in pairs:
        assert captions.names_style(new, meta["style"])
        assert ("red" in old) == any(word in new for word in ("red", "scarlet", "红"))
    unstyled = {captions.paraphrase({**meta, "style": "noto emoji"}, {}, [], rng)[1] for _ in range(100)}
    assert "a dog" in unstyled and "a dog, noto emoji" in unstyled
