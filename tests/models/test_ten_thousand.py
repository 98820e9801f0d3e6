"""Ten thousand strings and the ids that other code gives them, as one hash: for CLIP the SimpleTokenizer of OpenAI's
package (clip-anytorch 2.6.0, ftfy 6.3.1), for GLIDE, in lower case, the encoder of gpt-3-encoder 1.1.4.

The spellings of CLIP's special tokens are left out: there our ids differ, on purpose."""

import hashlib
import json
import random

import pytest

from unclip.models.glide_tokenizer import PAD, GlideTokenizer
from unclip.models.tokenizer import Tokenizer

CLIP = "e1b2f552eeacbd0cb4525319fab98bff0af40140283e69839353b3283b3c4739"
GLIDE = "97ce2e56123a01cdb5c83473da8af7f2215ddc03074b92b98caca0491f62a0fb"
WORDS = """a an the painting of photo corgi in style on top red cube 1920s DALL·E it's we'll they've I'm he'd don't
café naïve Straße 猫 红色的狐狸 キツネ 여우 лиса αλεπού שועל ثعلب लोमड़ी &amp; &lt;b&gt; &quot; &#39; &amp;amp;
Ã©tÃ© â€œquoteâ€\x9d
🙂 👍🏽 👩‍👩‍👧‍👦 🦊 ❤️ ½ ² 3.14 10,000 #tag @me http://x.y/z?q=1 ... -- !? __init__ C++
""".split(" ")
WORDS = [word for line in WORDS for word in line.split("\n")]
SPACES = [" ", " ", " ", " ", "  ", "\n", "\t", "\u3000", ""]
RANGES = [(32, 126), (32, 126), (161, 255), (0x391, 0x3A1), (0x410, 0x44F), (0x5D0, 0x5EA), (0x3042, 0x3093),
          (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x2010, 0x2027)]  # fmt: skip


def strings() -> list[str]:
    """Words in several scripts, loose characters, HTML, odd spaces; some very long."""
    rng, found = random.Random(0), []
    for i in range(10_000):
        length = 400 if i % 500 == 0 else rng.randrange(12)
        if i % 3:
            parts = [rng.choice(WORDS) + rng.choice(SPACES) for _ in range(length)]
        else:
            parts = [chr(rng.randint(*rng.choice(RANGES))) for _ in range(length)]
        found.append("".join(parts))
    return found


def digest(rows: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@pytest.mark.slow
def test_clip():
    clip = Tokenizer.clip()
    context = 4096
    rows = [row[mask].tolist() for row, mask in zip(*clip.encode(strings(), context), strict=True)]
    assert max(map(len, rows)) < context
    assert digest(rows) == CLIP


def test_glide():
    glide = GlideTokenizer()
    assert digest([glide.ids(text) for text in strings()]) == GLIDE
    ids, mask = glide.encode(["An oil painting of a Corgi, 1920s!", ""], 14)  # glide_tokens.npz
    assert ids[0].tolist() == [272, 3056, 12036, 286, 257, 1162, 12397, 11, 14062, 82, 0, *[PAD] * 3]
    assert mask.sum(1).tolist() == [11, 0]
    assert glide.encode("x" * 99, 4)[0].shape == (1, 4)
