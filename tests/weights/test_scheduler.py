"""scheduler_config.json, of which the rest is proved beside diffusers in the live tests."""

import pytest

from unclip.errors import UnclipError
from unclip.weights.scheduler import Scheduler

PUBLISHED = {  # Stable unCLIP's own
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}  # fmt: skip


def test_the_published_scheduler():
    s = Scheduler.of(PUBLISHED, "x")
    assert (s.sampler, s.reach, s.process.predicts) == ("plms", None, "v")
    levels = s.levels(1000, 4)
    assert levels.t.tolist() == [0, 1, 251, 501, 501, 751]  # the first step's end is passed twice; data is level 0
    assert levels.alpha[0] == levels[0].alpha < 1


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
                                  "UniPCMultistepScheduler"])  # fmt: skip
@pytest.mark.parametrize("more", [{}, {
    "clip_sample": True, "clip_sample_range": 2.5, "variance_type": "learned_range", "set_alpha_to_one": True,
    "beta_schedule": "linear", "timestep_spacing": "trailing", "thresholding": True, "dynamic_thresholding_ratio": 0.9,
    "sample_max_value": 3.0, "algorithm_type": "sde-dpmsolver++", "prediction_type": "epsilon", "steps_offset": 0,
}])  # fmt: skip
def test_what_was_read_is_said_again(kind, more):
    s = Scheduler.of(PUBLISHED | {"_class_name": kind} | more, "x")
    assert Scheduler.of(s.said, "x") == s
    assert s.said["_class_name"] == kind


def test_what_is_not_known_is_said():
    with pytest.warns(UserWarning, match="'EulerDiscreteScheduler', which is not known here; DDIM is used"):
        assert Scheduler.of(PUBLISHED | {"_class_name": "EulerDiscreteScheduler"}, "x").sampler == "ddim"
    with pytest.warns(UserWarning, match="Runge-Kutta"):
        Scheduler.of(PUBLISHED | {"skip_prk_steps": False}, "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [("beta_schedule", "sigmoid"), ("prediction_type", ["epsilon"]), ("trained_betas", [0.1]),
     ("rescale_betas_zero_snr", True), ("timestep_spacing", None)],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_in_one_line(key, value):
    with pytest.raises(UnclipError, match=key) as e:
        Scheduler.of(PUBLISHED | {key: value}, "x")
    assert "\n" not in str(e.value)


def test_a_value_of_another_type_is_refused():
    with pytest.raises(UnclipError, match="'many'; it must be int"):
        Scheduler.of(PUBLISHED | {"num_train_timesteps": "many"}, "x")


@pytest.mark.parametrize(("steps", "offset"), [(0, 0), (1001, 0), (1000, 1), (5, -2)])
def test_steps_beyond_the_chain(steps, offset):
    s = Scheduler.of(PUBLISHED | {"steps_offset": offset}, "x")
    with pytest.raises(UnclipError, match="ask for"):
        s.levels(1000, steps)
