"""The language model of captions says what its captions allow, and nothing that was heard."""

from unclip.data.writer import Captions

HEARD = ["a red fox", "a red car", "a blue fox", "the sun"]


def test_new_captions_are_made_of_heard_pairs():
    said = Captions(HEARD, order=1).new(3, seed=0)
    assert said == Captions(HEARD, order=1).new(3, seed=0)
    assert "a blue car" not in HEARD and set(said) <= {"a blue car", *said}
    pairs = {pair for line in HEARD for pair in zip(["", *line.split()], [*line.split(), ""], strict=True)}
    for line in said:
        assert line not in HEARD
        assert set(zip(["", *line.split()], [*line.split(), ""], strict=True)) <= pairs


def test_with_nothing_new_to_say_it_is_silent():
    assert Captions(["the sun"], order=3).new(5) == []
