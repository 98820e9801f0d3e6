from collections import Counter

import pytest

from unclip.data import clipart
from unclip.data.names import Name, Names
from unclip.data.sources import NAMES, SOURCES, contents, obtain

CLIPS = next(s.package for s in SOURCES if s.name == "openclipart")


@pytest.fixture(scope="module")
def found(packages) -> dict[str, Name | str]:
    """The name of each drawing, or the reason against it, by file name."""
    names = Names.read(contents(obtain(NAMES, packages, packages)))
    files = contents(obtain(CLIPS, packages, packages))
    vocabulary = {"cat", "red", "hat", "tree", "lamp", "rose"}
    return {path.rpartition("/")[2]: name for path, name in clipart.subjects(files, names, vocabulary)}


def test_title_and_keywords_are_read_from_the_file(found):
    cat = found["cat_jane_01.svg"]
    assert (cat.label, cat.concept, cat.zh) == ("cat", "cat", "猫")
    assert cat.keywords == ("animal", "pet")  # "hash" is a word of filing


def test_a_title_that_is_not_the_files_own_gives_way_to_its_name(found):
    assert found["red_hat.svg"].label == "red hat"


def test_flags_join_their_emoji(found):
    japan = found["japan.svg"]
    assert (japan.label, japan.concept, japan.flag) == ("flag of Japan", "flag-japan", True)


def test_every_other_file_has_a_reason(found):
    assert Counter(reason for reason in found.values() if isinstance(reason, str)) == {
        "interface icon, theme or playing card": 1,
        "licence is not public domain": 1,
        "no licence tag": 1,
        "title is not English": 2,
        "not well-formed XML": 1,
    }


@pytest.mark.parametrize(
    ("path", "title", "times", "expected"),
    [
        ("food/cone1_bw.svg", "Ice Cream Cone (1 scoop) (B and W)", 4, "Ice Cream Cone (1 scoop) black and white"),
        ("flags/canada_acadia.svg", "Canada - Acadia", 1, "Acadia, Canada"),
        ("flags/usa.svg", "Clipart by Paul B. Joiner - United States - Texas", 1, "Texas, United States"),
        ("people/mouth_01.svg", "mouth - body part", 6, "mouth"),
        ("animals/horse_1.svg", "horse#1", 1, "horse"),
        ("unsorted/Pinguino1.svg", "Various Cliparts", 115, "pinguino"),
        ("roadsigns/BusLane.svg", "SVG Road Signs", 52, "bus lane"),
        ("homes/home7.svg", "homes clipart", 20, "homes"),
        ("x/a1.svg", "Untitled", 1, ""),
    ],
)
def test_labels(path, title, times, expected):
    assert clipart._label(clipart.Drawing(f"{clipart.ROOT}{path}", title, []), times) == expected


def test_names_of_places_take_capitals():
    assert clipart.capitals("pays de la loire") == "Pays De La Loire"
    assert clipart.capitals("map of USA") == "Map of USA"
