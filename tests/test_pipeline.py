"""The whole system: what a picture depends on, and what a request may ask."""

from dataclasses import replace

import pytest
import torch

from unclip import metadata
from unclip.errors import UnclipError
from unclip.machine import pick_device
from unclip.models.clip import CLIP
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.pictures import to_pil
from unclip.pipeline import STEPS, UnCLIP
from unclip.recipes import mini
from unclip.settings import DIFFUSERS, LONGEST, SAMPLERS, Request, Settings

KINDS = (CLIP, Prior, Decoder, Upsampler)
FEW = {"steps": 3, "prior_steps": 3, "upsampler_steps": 2}


def draw(system, prompt="a red fox", **options):
    return system.generate(prompt, progress=False, **(FEW | options))


def png(image) -> bytes:
    return metadata.encode(image, "PNG", None)


# ---- what a picture depends on -------------------------------------------------------------------------------


def test_picture_i_is_the_same_alone(tiny):
    many = draw(tiny, ["a red fox", "a blue cat"], n=3, seed=11)
    assert many.seeds == [11, 12, 13, 14, 15, 16]
    assert many.prompts == ["a red fox"] * 3 + ["a blue cat"] * 3
    assert len({png(image) for image in many.images}) == 6
    for i, (prompt, seed) in enumerate(zip(many.prompts, many.seeds, strict=True)):
        alone = draw(tiny, prompt, seed=seed)
        assert png(alone.images[0]) == png(many.images[i])
        assert torch.equal(alone.embeddings[0], many.embeddings[i])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_threads_do_not_change_a_picture(tiny, sampler):
    before = torch.get_num_threads()
    try:
        pictures = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pictures.append(png(draw(tiny, sampler=sampler).images[0]))
    finally:
        torch.set_num_threads(before)
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_threads_do_not_change_a_picture_of_the_shipped_size(tiny):
    """The networks of mini with random weights: their layers have other shapes, at which other kernels run."""
    torch.manual_seed(0)
    parts = {make.__name__: kind(make().model).eval() for make, kind in zip(mini.stages, KINDS, strict=True)}
    for part in parts.values():
        for parameter in part.requires_grad_(False).parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    system, before = UnCLIP(tiny.tokenizer, **parts), torch.get_num_threads()
    try:
        pictures = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pictures.append(png(draw(system, steps=2, prior_steps=2, upsampler_steps=1).images[0]))
    finally:
        torch.set_num_threads(before)
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a blue cat"}, {"seed": 1}, {"negative_prompt": "blue"}, {"steps": 4}, {"guidance": 1.0},
     {"prior_steps": 4}, {"prior_guidance": 1.0}, {"upsampler_steps": 3}, {"best_of": 1}, {"sampler": "ddpm"},
     {"sampler": "dpmpp_2m"}, {"size": 16}, {"spacing": "karras"}, {"guidance_z": 3.0}, {"guidance_start": 0.5},
     {"guidance_stop": 0.5}, {"guidance_rescale": 0.7}, {"threshold": 0.9}, {"prior": "ar"}, {"prior": "none"},
     {"prior_sampler": "analytic"}, {"prior_sampler": "unipc"}],
    ids=str,
)  # fmt: skip
def test_every_setting_matters(tiny, change):
    assert png(draw(tiny, **change).images[0]) != png(draw(tiny).images[0])


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"temperature": 0.1}, {"top_p": 0.1}, {"prior_guidance": 1.0}], ids=str
)
def test_every_setting_of_the_other_prior_matters(tiny, change):
    z_i = [draw(tiny, prior="ar", size=16, **c).embeddings for c in ({}, change)]
    assert not torch.equal(*z_i)


def test_without_a_prior_the_caption_is_decoded(tiny):
    result = draw(tiny, ["a red fox", "a blue cat"], prior="none", size=16)
    torch.testing.assert_close(result.embeddings, tiny.read(["a red fox", "a blue cat"])[2])


def test_a_prior_that_the_weights_lack(tiny):
    parts = {"clip": tiny.clip, "decoder": tiny.decoder, "upsampler": tiny.upsampler}
    bare = UnCLIP(tiny.tokenizer, prior=Prior(replace(tiny.prior.config, measured=0)), **parts)
    with pytest.raises(UnclipError, match=r"hold no autoregressive prior; train it \(unclip train mini.prior_ar\)"):
        draw(bare, prior="ar")
    with pytest.raises(UnclipError, match="no analytic variance was measured; measure it"):
        draw(bare, prior_sampler="analytic")
    assert draw(bare, prior="none").images


def test_a_prior_is_named_only_where_it_was_published_apart(tiny_folder):
    with pytest.raises(UnclipError, match="holds the prior that it needs"):
        UnCLIP.from_pretrained(tiny_folder, prior="mini")


def test_branches_of_guidance(tiny):
    """Scales of 1 are no guidance, and no branch runs for them; a scale for z_i makes three branches."""
    z, calls = tiny.read(["a red fox"])[2], []
    real = tiny.decoder.unet.forward

    def counted(x, *rest):
        calls.append(len(x))
        return real(x, *rest)

    def x0(**settings):
        denoise, given = tiny.guided(z, "a red fox", "", Settings(**settings))
        x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return denoise(x, tiny.decoder.config.diffusion.levels()[500], given=given).x0

    tiny.decoder.unet.forward = counted
    try:
        none, one, two = x0(guidance=1), x0(guidance=3), x0(guidance=3, guidance_z=2)
        same = x0(guidance=1, guidance_z=1)
        torch.testing.assert_close(none, same)
        torch.testing.assert_close(x0(guidance=3, guidance_start=0.6), none)  # row 500 is half-way
        torch.testing.assert_close(x0(guidance=3, guidance_start=0.4), one)
        torch.testing.assert_close(x0(guidance=3, guidance_stop=0.4, guidance_z=2), none)
    finally:
        del tiny.decoder.unet.forward
    assert calls == [1, 2, 3, 1, 1, 2, 1]
    assert not torch.allclose(one, two)


def test_an_empty_or_absent_negative_prompt_is_none(tiny):
    assert png(draw(tiny, negative_prompt=None).images[0]) == png(draw(tiny, negative_prompt="  ").images[0])


@pytest.fixture(scope="module")
def hasty(tiny):
    """The tiny pipeline with its own decoder and upsampler for students: not one has learnt anything."""
    students = {"decoder_fast": tiny.decoder, "upsampler_256_fast": tiny.upsampler}
    return UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, tiny.upsampler, "hasty", students=students)


def test_students_draw_in_few_calls_without_guidance(hasty, tmp_path):
    told = []
    result = draw(hasty, fast=2, callback=told.append)
    assert [(p.stage, p.steps) for p in told[3:]] == [("decoder", 2)] * 2 + [("upsampler", 2)] * 2
    assert (result.params["steps"], result.params["guidance"], result.params["upsampler_steps"]) == (2, 1.0, 2)
    assert png(draw(hasty, fast=2, guidance=5.0).images[0]) == png(result.images[0])
    assert png(draw(hasty, fast=2, sampler="renoise").images[0]) != png(result.images[0])
    assert png(draw(hasty).images[0]) != png(result.images[0])
    again = UnCLIP.from_pretrained(hasty.save_pretrained(tmp_path, torch.float32), device="cpu")
    assert png(draw(again, fast=2).images[0]) == png(result.images[0])


def test_a_student_walks_by_its_own_levels(hasty, monkeypatch):
    """1000 and 500, as it has learnt: not 1000 and 1, the ends of an even spread."""
    times, real = [], Decoder.forward

    def forward(self, x, t, given):
        times.append(t.tolist())
        return real(self, x, t, given)

    monkeypatch.setattr(Decoder, "forward", forward)
    draw(hasty, size=16, fast=2)
    assert times == [[999], [499]]


def test_what_students_cannot_do(tiny, hasty):
    with pytest.raises(UnclipError, match="'tiny' hold no few-step decoder; train it: unclip train mini.decoder_fast"):
        draw(tiny, fast=4)
    with pytest.raises(UnclipError, match="cannot go back to x_T"):
        hasty.reconstruct(draw(tiny, size=16).images[0], fast=2, progress=False)
    with pytest.raises(UnclipError, match="cannot steer away from a negative prompt"):
        draw(hasty, fast=4, negative_prompt="blue")


def test_what_comes_back(tiny):
    result = draw(tiny, n=2, negative_prompt="blue")
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert result.embeddings.shape == (2, 16)
    torch.testing.assert_close(result.embeddings.norm(dim=1), torch.ones(2))
    assert result.params == {"size": 64, "guidance": 2.0, "prior_guidance": 3.0, "best_of": 2, "sampler": "ddim",
                             "upsampler_1024_steps": 4, "fast": 0, "tile": None, "negative_prompt": "blue",
                             "spacing": "even",
                             "guidance_z": None, "guidance_start": 0.0, "guidance_stop": 1.0, "guidance_rescale": 0.0,
                             "clip_guidance": 0.0, "noise_level": 0, "threshold": None, "hint": None,
                             "prior": "diffusion", "prior_sampler": "ddim",
                             "temperature": 1.0, "top_p": 1.0} | FEW  # fmt: skip


def test_the_best_candidate_is_the_one_nearest_to_the_caption(tiny):
    def nearness(best_of: int) -> float:
        z_i = draw(tiny, n=8, size=16, steps=1, best_of=best_of).embeddings
        return (z_i @ tiny.read(["a red fox"])[2][0]).mean().item()

    assert nearness(16) > nearness(4) > nearness(1)


def test_the_callback_hears_of_every_step(tiny):
    told = []
    result = draw(tiny, n=2, callback=told.append)
    steps = {"prior": 3, "decoder": 3, "upsampler": 2}
    expected = [(i, stage, k + 1, n) for i in range(2) for stage, n in steps.items() for k in range(n)]
    assert [(p.image, p.stage, p.step, p.steps) for p in told] == expected
    shapes = {p.stage: tuple(p.estimate.shape) for p in told}
    assert shapes == {"prior": (16,), "decoder": (3, 16, 16), "upsampler": (3, 64, 64)}
    assert png(to_pil(told[-1].estimate[None])[0]) == png(result.images[1])  # the last step ends at the estimate


def test_diffusers_names_mean_the_same(tiny):
    told = []
    theirs = tiny.generate(
        "a red fox", progress=False, num_inference_steps=3, prior_num_inference_steps=3, guidance_scale=4.0,
        super_res_num_inference_steps=2, num_images_per_prompt=2, generator=torch.Generator().manual_seed(7),
        callback_on_step_end=lambda pipe, i, left, tensors: told.append((i, left, sorted(tensors))),
    )  # fmt: skip
    ours = draw(tiny, n=2, seed=7, guidance=4.0)
    assert [png(image) for image in theirs.images] == [png(image) for image in ours.images]
    assert theirs.params == ours.params
    assert told == [(i, n - i - 1, ["latents"]) for n in (3, 3, 2) for i in range(n)] * 2
    assert set(DIFFUSERS.values()) <= set(Settings.__dataclass_fields__)


def test_one_generator_for_each_picture(tiny):
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 3)]
    result = draw(tiny, n=2, generator=generators)
    assert result.seeds == [5, 3]
    assert png(result.images[1]) == png(draw(tiny, seed=3).images[0])


def test_samplers_are_all_there():
    assert tuple(STEPS) == SAMPLERS


# ---- what may be asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": ["a fox", ""]}, "the prompt is empty"),
        ({"prompt": [7]}, "the prompt is 7; it must be text"),
        ({"prompt": "fox \ud800"}, "no valid Unicode text at character 4"),
        ({"prompt": "x" * (LONGEST + 1)}, f"{LONGEST + 1} characters; at most {LONGEST}"),
        ({"negative_prompt": ["blue"]}, "must be text"),
        ({"n": 0}, "n is 0; it must be a whole number from 1 to 10000"),
        ({"n": "2"}, "n is '2'"),
        ({"n": True}, "n is True"),
        ({"n": 10_001}, "n is 10001"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": float("nan")}, "seed is nan"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "2 generators for 1 pictures"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"steps": 2.5}, "steps is 2.5; it must be int"),
        ({"steps": True}, "steps is True"),
        ({"prior_steps": 10**9}, "prior_steps is 1000000000"),
        ({"upsampler_steps": -3}, "upsampler_steps is -3"),
        ({"guidance": float("nan")}, "guidance is nan; it must be from 0 to 100"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"prior_guidance": -0.1}, "prior_guidance is -0.1"),
        ({"best_of": 65}, "best_of is 65"),
        ({"sampler": "ddmp"}, "unknown sampler 'ddmp'; did you mean 'ddpm'?"),
        ({"size": 32}, "size is 32; these weights draw 16 or 64"),
        ({"size": "64"}, "size is '64'"),
        ({"guidence": 3.0}, "unknown setting 'guidence'; did you mean 'guidance'?"),
    ],
)
def test_what_cannot_be_asked(tiny, given, message):
    with pytest.raises(UnclipError, match=message) as caught:
        draw(tiny, **({"prompt": "a fox"} | given))
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_the_last_seeds(tiny):
    assert draw(tiny, seed=2**63 - 2, n=2).seeds == [2**63 - 2, 2**63 - 1]
    with pytest.raises(UnclipError, match="seed is"):
        Request.of("a fox", n=2, seed=2**63 - 1)


def test_a_prompt_that_is_too_long_is_told_and_drawn(tiny):
    text = "a red fox " * 40
    with pytest.warns(UserWarning, match="too long for these weights; left out: '.*fox") as warned:
        assert draw(tiny, text, n=2).images
    assert len(warned) == 1
    unseen = tiny.cut(text)
    assert text.strip().endswith(unseen)
    with pytest.warns(UserWarning, match="left out"):
        assert png(draw(tiny, text[: -len(unseen) - 1] + " blue").images[0]) == png(draw(tiny, text).images[0])


def test_any_script_can_be_drawn(tiny):
    pictures = {png(draw(tiny, prompt).images[0]) for prompt in ("红狐", "лиса", "🦊", "\0")}
    assert len(pictures) == 4


def test_stages_of_another_dtype(tiny, tiny_folder):
    half = UnCLIP.from_pretrained(tiny_folder, device="cpu", dtype=torch.bfloat16)
    assert half.record(half.fit(Request.of("x")), 0)["dtype"] == "bfloat16"
    assert png(draw(half).images[0]) != png(draw(tiny).images[0])


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_cannot_be_used(name):
    with pytest.raises(UnclipError, match=f"device '{name}' cannot be used here: .*usable: cpu"):
        pick_device(name)
