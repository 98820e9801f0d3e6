"""Every public checkpoint's keys are used once and none is left over; what differs is named."""

import math
import random
import re
from dataclasses import replace

import pytest

from unclip.errors import UnclipError
from unclip.weights.families import FAMILIES
from unclip.weights.family import Schema, Spec, match
from unclip.weights.match import prepare, recognise, used
from unclip.weights.openai_clip import OPENAI, OPENAI_CLIP

# name of the schema → what it must be recognised as
PUBLIC = {
    "clip_RN50": "OpenAI CLIP RN50",
    "clip_RN101": "OpenAI CLIP RN101",
    "clip_RN50x4": "OpenAI CLIP RN50x4",
    "clip_RN50x16": "OpenAI CLIP RN50x16",
    "clip_RN50x64": "OpenAI CLIP RN50x64",
    "clip_ViT-B-32": "OpenAI CLIP ViT-B/32",
    "clip_ViT-B-16": "OpenAI CLIP ViT-B/16",
    "clip_ViT-L-14": "OpenAI CLIP ViT-L/14",
    "clip_ViT-L-14-336px": "OpenAI CLIP ViT-L/14@336px",
    "glide_clip_image_enc": "GLIDE noised CLIP, pictures",
    "glide_clip_text_enc": "GLIDE noised CLIP, captions",
    "dalle1_dvae_encoder": "DALL·E 1 dVAE encoder",
    "dalle1_dvae_decoder": "DALL·E 1 dVAE decoder",
    "vqgan_imagenet_f16_1024": "VQGAN f16 of ImageNet, 1024 codes",
    "kandinsky2_1_movq": "Kandinsky MoVQ 2.1",
    "karlo_prior": "Karlo and Kandinsky 2.1 prior 1B",
    "karlo_decoder": "Karlo decoder v1 alpha",
    "karlo_sr_64_256": "Karlo upsampler v1 alpha",
    "kandinsky2_1_prior": "Karlo and Kandinsky 2.1 prior 1B",
    "kandinsky2_1_decoder": "Kandinsky 2.1 decoder",
    "kandinsky2_1_decoder_inpaint": "Kandinsky 2.1 inpainting",
    "glide_base": "GLIDE base",
    "glide_base_inpaint": "GLIDE base, inpaint",
    "glide_upsample": "GLIDE upsample",
    "glide_upsample_inpaint": "GLIDE upsample, inpaint",
    "adm_64x64_diffusion": "guided-diffusion 64x64",
    "adm_128x128_diffusion": "guided-diffusion 128x128",
    "adm_256x256_diffusion": "guided-diffusion 256x256",
    "adm_256x256_diffusion_uncond": "guided-diffusion 256x256 unconditional, or LSUN",
    "adm_lsun_bedroom": "guided-diffusion 256x256 unconditional, or LSUN",
    "adm_512x512_diffusion": "guided-diffusion 512x512",
    "adm_64_256_upsampler": "guided-diffusion 64→256",
    "adm_128_512_upsampler": "guided-diffusion 128→512",
    "adm_64x64_classifier": "guided-diffusion classifier 64x64",
    "adm_128x128_classifier": "guided-diffusion classifier 128x128",
    "adm_256x256_classifier": "guided-diffusion classifier 256x256",
    "adm_512x512_classifier": "guided-diffusion classifier 512x512",
    "iddpm_cifar10_uncond": "improved-diffusion CIFAR-10",
    "iddpm_imagenet64_uncond": "improved-diffusion ImageNet 64",
    "iddpm_imagenet64_cond": "improved-diffusion ImageNet 64 with classes",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_checkpoint_is_used_whole(schemas, schema, name):
    found = schema(name)
    m = recognise(found, FAMILIES, name)
    assert m.title == PUBLIC[name]
    assert used(found, m) == len(found) == len(m.wanted)
    assert all(p.device.type == "meta" for p in m.net.parameters())
    buffers = {key for key in found if "running_" in key or "num_batches" in key}
    assert sum(math.prod(spec.shape) for key, spec in m.wanted.items() if key not in buffers) == schemas[name]["params"]


def changes(found: Schema, key: str):
    """This key missing, reshaped or retyped, or one added that is like it, and the key that the message must name."""
    shape, dtype = found[key]
    yield key, Schema({k: v for k, v in found.items() if k != key})
    yield f"{key}_x", Schema({**found, f"{key}_x": Spec(shape, dtype)})
    longer = (shape[0] + 1, *shape[1:]) if shape else (1,)
    yield key, Schema({**found, key: Spec(longer, dtype)})
    yield key, Schema({**found, key: Spec((*shape, 1), dtype)})
    yield key, Schema({**found, key: Spec((*shape[:-1], 2 * shape[-1]) if shape else (2, 2), dtype)})
    if shape:
        yield key, Schema({**found, key: Spec((), dtype)})
    for other in ("int32", "float16", "bfloat16", "float64"):
        yield key, Schema({**found, key: Spec(shape, other)})
    for number in re.finditer(r"\d+", key):  # one more of what is counted
        more = f"{key[: number.start()]}{int(number[0]) + 1}{key[number.end() :]}"
        if more not in found:
            yield more, Schema({**found, more: Spec(shape, dtype)})


def named(name: str, key: str, changed: Schema) -> bool:
    with pytest.raises(UnclipError) as e:
        recognise(changed, FAMILIES, name)
    said, family = str(e.value), PUBLIC[name].partition(" ")[0]
    assert "expected" in said or "is missing" in said
    return f"{name!r} looks like {family}" in said and repr(key) in said


@pytest.mark.parametrize("name", PUBLIC)
def test_one_change_is_found_and_named(schema, name):
    rng = random.Random(name)
    found = schema(name)
    for key, changed in rng.sample(list(changes(found, rng.choice(list(found)))), 2):
        assert named(name, key, changed)


@pytest.fixture
def prepared_once(monkeypatch):
    """Networks are built on the meta device once for all changes that lead to the same one."""
    kept = {}

    def once(family, config, member=""):
        key = family.name, config, member
        if key not in kept:
            kept[key] = prepare(family, config, member)
        return kept[key]

    monkeypatch.setattr("unclip.weights.match.prepare", once)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_any_change_is_found_and_named(schema, prepared_once, name):
    found, rng = schema(name), random.Random(name)
    for chosen in rng.sample(list(found), min(50, len(found))):
        for key, changed in changes(found, chosen):
            assert named(name, key, changed), (key, changed.get(key))


# Their config.json tells heads, activation and patches, which no shape does: the live tests read them with it.
BY_SHAPES = [f for f in FAMILIES if not f.name.startswith(("Hugging Face", "sentence encoder"))]


@pytest.mark.slow
@pytest.mark.parametrize("family", BY_SHAPES, ids=lambda family: family.name)
def test_every_published_member_is_known_by_its_shapes(family):
    for name, config in family.published.items():
        wanted = prepare(family, config).wanted
        m = recognise(Schema(wanted), FAMILIES, name, family.name)
        assert m.member == name or prepare(family, family.published[m.member]).wanted == wanted


def test_what_is_of_no_family():
    with pytest.raises(UnclipError, match=r"'x' is of no family that is known here; its 1 keys begin with 'a.weight'"):
        recognise(Schema({"a.weight": Spec((2, 2), "float32")}), FAMILIES, "x")


def test_a_published_model_but_for_one_key_is_damaged(schema):
    """Another vocabulary would make a network of its own, of this family or of one that looks alike."""
    for name in ("clip_ViT-B-32", "clip_RN50"):
        key, found = "token_embedding.weight", schema(name)
        rows, width = found[key].shape
        assert named(name, key, Schema({**found, key: Spec((rows + 1, width), "float32")}))


def test_patterns():
    assert match("a.{i}.{p}", "a.12.bias") == {"i": "12", "p": "bias"}
    assert match("a.{i}.{p}", "a.x.bias") is None
    assert match("a.{p}", "a.b.c") is None
    assert match("a+b", "aab") is None  # nothing but braces is special


def test_one_odd_type_in_a_file_of_two():
    """Half precision for matrices alone is as published; one matrix of another type than its like is not."""
    c = OPENAI["ViT-B/32"]
    small = replace(c, image=replace(c.image, depth=4), text=replace(c.text, depth=4))
    wanted = prepare(OPENAI_CLIP, small).wanted
    half = {key: Spec(spec.shape, "float16" if len(spec.shape) > 1 else "float32") for key, spec in wanted.items()}
    assert recognise(Schema(half), FAMILIES, "x").config == small
    key = "transformer.resblocks.2.mlp.c_fc.weight"
    with pytest.raises(UnclipError, match=rf"'{key}' is \[2048, 512\] float32, expected \[2048, 512\] float16"):
        recognise(Schema(half | {key: wanted[key]}), FAMILIES, "x")
