import pytest

from unclip.errors import UnclipError
from unclip.recipes import mini
from unclip.weights.config import from_dict, override, to_dict


@pytest.mark.parametrize("recipe", mini.stages)
def test_configurations_survive_json(recipe):
    config = recipe().model
    assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize(
    "name, text, read",
    [
        ("train.batch", "64", lambda r: r.train.batch == 64),
        ("train.lr", "1", lambda r: r.train.lr == 1.0 and isinstance(r.train.lr, float)),
        ("train.precision", "fp32", lambda r: r.train.precision == "fp32"),
        ("data.core", "false", lambda r: r.data.core is False),
        ("model.unet.channels", "[64, 96]", lambda r: r.model.unet.channels == (64, 96)),
        ("model.unet.context", "null", lambda r: r.model.unet.context is None),
    ],
)
def test_overrides_are_typed(name, text, read):
    assert read(override(mini.decoder(), name, text))


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("train.bach", "64", "did you mean 'batch'"),
        ("trian.batch", "64", "did you mean 'train'"),
        ("train.batch", "many", "train.batch is 'many'; it must be int"),
        ("train.batch", "true", "must be int"),
        ("train.precision", "fp8", "'auto', 'fp32', 'bf16'"),
        ("train.batch.more", "1", "no setting"),
        ("model.unet.channels", '[64, "x"]', "channels[1]"),
    ],
)
def test_wrong_overrides_name_the_value_and_the_fix(name, text, says):
    with pytest.raises(UnclipError, match=".") as error:
        override(mini.decoder(), name, text)
    assert says in str(error.value)


def test_unknown_keys_in_a_file_are_refused():
    data = to_dict(mini.prior().model) | {"widht": 3}
    with pytest.raises(UnclipError, match="unknown setting 'widht'"):
        from_dict(type(mini.prior().model), data)
