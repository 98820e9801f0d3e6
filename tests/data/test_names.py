import pytest

from unclip.data.names import Names, Splitter, slug, tidy, tidy_zh
from unclip.data.sources import NAMES, contents, obtain
from unclip.errors import UnclipError


@pytest.fixture(scope="module")
def names(packages) -> Names:
    return Names.read(contents(obtain(NAMES, packages, packages)))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("flag: Côte d’Ivoire", "flag of Côte d'Ivoire"),
        ("keycap: 7", "keycap 7"),
        ("woman: light skin tone, curly hair", "woman with curly hair, light skin tone"),
        ("man: bald", "bald man"),
        ("family: man, woman, boy", "family of man, woman and boy"),
        ("kiss: man, man, light skin tone, dark skin tone", "kiss of man and man, light skin tone, dark skin tone"),
        ("Japanese “secret” button", "Japanese secret button"),
        ("cat", "cat"),
    ],
)
def test_labels_read_as_a_person_would_write_them(label, expected):
    assert tidy(label) == expected


def test_chinese_labels():
    assert tidy_zh("旗: 日本") == "日本旗"
    assert tidy_zh("按键: 1") == "按键1"
    assert tidy_zh("亲吻: 女人男人中等-浅肤色较浅肤色") == "亲吻，女人男人，中等-浅肤色，较浅肤色"
    assert tidy_zh("猫") == "猫"


def test_slug():
    assert slug("Côte d'Ivoire & Co.") == "cote-divoire-and-co"


def test_found_by_codepoint_label_alias_and_old_name(names):
    assert names.find("whatever", codes=["1f44b"]).label == "waving hand"
    assert names.find("pilot", codes=["1F9D1-200D-2708"]).label == "pilot"  # FE0F or not
    assert names.find("waving-hand").zh == "挥手"
    assert names.find("salute", others=["waving-hand"]).label == "waving hand"
    assert names.find("hugging-face").concept == "smiling-face-with-open-hands"
    assert names.find("huggingface").concept == "smiling-face-with-open-hands"
    assert names.find("bow").concept == "person-bowing"
    assert names.find("rocket-2").label == "rocket"
    assert names.find("gadget") is None


@pytest.mark.parametrize("key", ["waving-hand-dark-skin-tone", "waving-hand-dark", "waving-hand-tone5"])
def test_skin_tones_share_the_concept_of_their_base(names, key):
    name = names.find(key)
    assert name.tone
    assert name.concept == "waving-hand"
    assert name.label == "waving hand, dark skin tone"


def test_an_unlisted_skin_tone_is_read_from_the_key(names):
    name = names.find("person-bowing-medium-light-skin-tone")
    assert (name.label, name.concept, name.tone) == ("person bowing, medium-light skin tone", "person-bowing", True)


@pytest.mark.parametrize("key", ["pilot", "man-pilot", "woman-pilot", "man-pilot-medium-skin-tone"])
def test_genders_share_a_concept(names, key):
    assert names.find(key).concept == "pilot"


def test_gender_marked_by_a_sign_shares_a_concept(names):
    assert names.find("woman-bowing").concept == names.find("person-bowing").concept
    assert names.guess("man-bowing", Splitter(names.vocabulary())).concept == "person-bowing"


@pytest.mark.parametrize("key", ["flag-japan", "flag-for-japan", "flag-for-flag-japan"])
def test_flags_by_name(names, key):
    name = names.find(key)
    assert (name.label, name.concept, name.flag) == ("flag of Japan", "flag-japan", True)


def test_flags_by_country_code(names):
    assert names.flag("jp").label == "flag of Japan"
    assert names.flag("qq") is None


def test_country_codes_and_numbers_are_no_keywords(names):
    assert names.find("cat").keywords == ("cat thing", "nice")


def test_groups_are_those_of_the_emoji(names):
    groups = {key: names.find(key).group for key in ("cat", "flag-japan", "waving-hand-dark", "person-bowing")}
    assert groups == {"cat": "animals-nature", "flag-japan": "flags", "waving-hand-dark": "people-body",
                      "person-bowing": "people-body"}  # fmt: skip
    assert names.words("Cat").group == "animals-nature" and names.words("gadget").group == ""


def test_words_join_an_emoji_of_the_same_label(names):
    cat = names.words("Cat")
    assert (cat.concept, cat.zh, cat.emoji) == ("cat", "猫", False)
    assert names.words("tall tree house").concept == "tall-tree-house"


def test_run_together_names_are_cut_into_words(names):
    splitter = Splitter(names.vocabulary())
    assert splitter("rockethat") == "rocket hat"
    assert splitter("zzzrocket") is None
    assert names.guess("rockethat", splitter).label == "rocket hat"
    assert names.guess("zzz", splitter) is None


def test_guess_keeps_tones_and_flags(names):
    splitter = Splitter(names.vocabulary())
    toned = names.guess("gadget-holder-dark-skin-tone", splitter)
    assert (toned.label, toned.concept, toned.tone) == ("gadget holder, dark skin tone", "gadget-holder", True)
    assert names.guess("flag-for-atlantis", splitter).flag


def test_a_missing_file_is_named(packages):
    files = contents(obtain(NAMES, packages, packages))
    del files["zh/data.json"]
    with pytest.raises(UnclipError, match="lacks zh/data.json"):
        Names.read(files)
