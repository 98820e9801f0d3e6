import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unclip.errors import UnclipError
from unclip.models.tokenizer import END, PAD, START, Tokenizer

# Strings, each with the ids that the SimpleTokenizer of open_clip 3.3.0 gives it (ftfy 6.3.1, regex 2026.11.15).
GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "clip_tokens.json").read_text())

CAPTIONS = [
    f"{article} {colour} {thing} {place}，{zh}"
    for article in ("a", "one")
    for colour in ("red", "blue", "yellow")
    for thing in ("cube", "cat", "café", "42 balloons")
    for place in ("on a table", "in the rain")
    for zh in ("红色的猫", "蓝色的狗")
]
AWKWARD = ["", " ", "\n\t", "\x00", "a\x00b", "\ud800", "x\udfffy", "\ud83d\ude00", "🙂👍🏽", "👩‍👩‍👧‍👦", "\u200b"]
AWKWARD += ["é" * 500, "猫" * 200, "a" * 10_000]
any_text = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates too


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocab_size=400)


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.clip()


@pytest.fixture(params=["own", "clip"])
def either(request, own, clip) -> Tokenizer:
    return {"own": own, "clip": clip}[request.param]


# ---- CLIP's own numbers ----


def test_clip_gives_the_ids_of_the_original(clip):
    texts = [text for text, _ in GOLDEN]
    room = max(len(expected) for _, expected in GOLDEN)
    ids, mask = clip.encode(texts, room + 2)
    assert len(texts) > 200
    for (text, expected), row, seen in zip(GOLDEN, ids.tolist(), mask.tolist(), strict=True):
        spare = room - len(expected)
        assert row == [49406, *expected, 49407] + [0] * spare, text
        assert seen == [True] * (len(expected) + 2) + [False] * spare, text


def test_clip_vocabulary(clip):
    assert (clip.vocab_size, clip.start, clip.end, clip.pad) == (49408, 49406, 49407, 0)


def test_clip_cuts_as_the_original_does(clip):
    """Known ids of 'a photo of a cat': context 5 keeps three of five."""
    ids, mask = clip.encode(["a photo of a cat"], 5)
    assert ids.tolist() == [[49406, 320, 1125, 539, 49407]]
    assert mask.all()


def test_clip_decodes_past_an_exclamation_mark(clip):
    """"!" is id 0, as padding is."""
    ids, mask = clip.encode(["Hi!~ You"], 10)
    assert 0 in ids[0, : mask.sum()].tolist()
    assert clip.decode(ids[0]) == "hi !~ you"


# ---- our own ----


def test_special_ids(own):
    assert [own.bpe.token_to_id(name) for name in (PAD, START, END)] == [0, 1, 2]
    assert (own.pad, own.start, own.end) == (0, 1, 2)


def test_training_is_a_function_of_the_texts(own):
    assert Tokenizer.train(iter(CAPTIONS), vocab_size=400).bpe.to_str() == own.bpe.to_str()


def test_training_learns_words_first_or_later_in_a_text_alike(own):
    (first,), _ = own.encode(["cube"], 8)
    (later,), _ = own.encode(["red cube"], 8)
    assert first[1] == later[2]
    assert own.bpe.id_to_token(int(first[1])) == "Ġcube"


def test_case_spaces_and_composition_do_not_matter(own):
    ids, _ = own.encode(["a red cafe\u0301", "  A\n\tRED   Café "], 24)
    assert (ids[0] == ids[1]).all()


def test_no_token_spans_two_chinese_characters(own):
    """`红色的猫` is in every second caption, and still is four words."""
    decoded = [own.bpe.decode([i]) for i in range(own.vocab_size)]
    assert "猫" in decoded
    assert not [token for token in decoded if sum("\u4e00" <= c <= "\u9fff" for c in token) > 1]


def test_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(UnclipError, match="vocab_size is 258; it must be at least 259"):
        Tokenizer.train(CAPTIONS, vocab_size=258)


def test_vocabulary_grows_to_the_size_asked_for():
    assert Tokenizer.train(CAPTIONS, vocab_size=280).vocab_size == 280


def test_scarce_text_makes_a_small_vocabulary():
    assert Tokenizer.train([], vocab_size=8192).vocab_size == 259


@given(text=any_text)
def test_own_decodes_what_it_encoded(own, text):
    """Byte-level: nothing is lost but what the normaliser drops, and normalising twice changes nothing more."""
    ids, mask = own.encode([text], 400)
    once = own.decode(ids[0])
    again, _ = own.encode([once], 400)
    assert own.decode(again[0]) == once
    assert own.cut(text, int(mask.sum())) == ""


# ---- both ----


@pytest.mark.parametrize("text", AWKWARD, ids=lambda text: ascii(text[:12]))
def test_any_string_encodes(either, text):
    ids, mask = either.encode([text], 20)
    kept = int(mask.sum())
    row = ids[0].tolist()
    assert row[0] == either.start
    assert row[kept - 1] == either.end
    assert row[kept:] == [either.pad] * (20 - kept)
    assert mask[0, :kept].all()
    assert max(row) < either.vocab_size
    either.decode(ids[0])
    either.cut(text, 20)


@given(text=any_text)
def test_specials_stand_at_the_ends_only(own, clip, text):
    for tokenizer in (own, clip):
        ids, mask = tokenizer.encode([text], 40)
        inner = ids[0, 1 : int(mask.sum()) - 1].tolist()
        assert not {tokenizer.start, tokenizer.end} & set(inner)


@pytest.mark.parametrize("special", [PAD, START, END, "<|startoftext|>", "<|endoftext|>"])
def test_special_tokens_cannot_be_spelt(either, special):
    ids, mask = either.encode([f"a {special} b"], 40)
    inner = ids[0, 1 : int(mask.sum()) - 1].tolist()
    assert not {either.start, either.end} & set(inner)
    assert either.is_clip or either.pad not in inner


@pytest.mark.parametrize("text", ["a red cube on a yellow table", "红色的猫在雨中跳舞和唱歌", "one two 3 four! five?"])
def test_cut_is_what_encode_left_out(either, text):
    """What is kept and what is cut make up the text, at every context."""
    whole = int(either.encode([text], 200)[1].sum())
    assert either.cut(text, whole) == ""
    seen = set()
    for context in range(2, whole):
        kept = either.decode(either.encode([text], context)[0][0])
        cut = either.cut(text, context)
        seen.add(cut)
        joined = (kept + cut).replace(" ", "").replace("\ufffd", "")
        assert cut
        assert text.endswith(cut)
        # a character split between two tokens is counted as cut, so its first bytes decode to U+FFFD above
        assert joined == text.replace(" ", "")
    assert text in seen


def test_cut_keeps_the_writers_case(own):
    assert own.cut("a red cube on a Yellow TABLE", 7) == "Yellow TABLE"


def test_one_string_is_one_text(either):
    assert (either.encode("a cat", 8)[0] == either.encode(["a cat"], 8)[0]).all()


def test_no_texts(either):
    ids, mask = either.encode([], 8)
    assert ids.shape == mask.shape == (0, 8)


def test_a_text_does_not_depend_on_its_batch(either):
    together, _ = either.encode(CAPTIONS[:20], 30)
    assert all((either.encode([text], 30)[0][0] == row).all() for text, row in zip(CAPTIONS, together, strict=False))


def test_a_context_without_room_is_refused(either):
    assert either.encode(["a cat"], 2)[0].tolist() == [[either.start, either.end]]
    with pytest.raises(UnclipError, match="context is 1; it must be at least 2"):
        either.encode(["a cat"], 1)


# ---- files ----


def test_saved_and_loaded_is_the_same(either, tmp_path):
    either.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = [*CAPTIONS[:5], *AWKWARD, "&lt;b&gt; <|end|>"]
    assert (loaded.encode(texts, 50)[0] == either.encode(texts, 50)[0]).all()
    assert loaded.bpe.to_str() == either.bpe.to_str()
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_pickled_for_a_worker_is_the_same(either):
    copy = pickle.loads(pickle.dumps(either))
    assert (copy.encode(CAPTIONS, 50)[0] == either.encode(CAPTIONS, 50)[0]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "not a tokenizer.json"),
        (b"\xff\xfe", "not a tokenizer.json"),
        (b"{}", "not a tokenizer.json"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "lacks '<|start|>'"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnclipError, match=r"tokenizer\.json") as caught:
        Tokenizer.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_fills_up_is_kept(tmp_path):
    tokenizer = Tokenizer.clip()
    tokenizer.pad = tokenizer.end
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    rows = [t.encode(["a", "a fox in"], 9)[0].tolist() for t in (tokenizer, again)]
    assert rows[0] == rows[1] and rows[0][0][-6:] == [again.end] * 6
