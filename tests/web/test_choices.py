"""Values of the page's controls as jobs, and what a model can do."""

from fractions import Fraction
from pathlib import Path

import pytest

from animation.jobs import Job, JobOptions
from animation.settings import Settings
from branches.model import Model
from common.errors import UserError
from tests.helpers.factories import tiny_config
from tests.helpers.lively import KINDS, kind_config
from web.choices import (
    Capabilities,
    FormValues,
    explain,
    find_capabilities,
    find_controls,
    read_job,
    read_options,
)

AGE = "step 8"
ALL = Capabilities(
    ("motion", "masks"),
    has_cutting=True,
    has_painting=True,
    modes=("relative", "absolute"),
    has_keypoints=True,
    has_scale=True,
    notes=(),
)
X2FACE = ALL._replace(modes=("absolute",), has_keypoints=False)
TPSMM = ALL._replace(modes=("relative", "absolute", "avd"), has_scale=False)
FRESH = FormValues(
    source="/up/anna.png",
    driving="/up/dance.mov",
    background="none",
    background_image="/up/beach.jpg",
    background_clip="/up/waves.mp4",
    background_color="#00ff00",
    background_type="same",
    compose="network",
    animator="motion",
    motion="relative",
    reference_frame="first",
    adapt_scale=False,
    smooth=False,
    crop="none",
    paste_back=False,
    start="",
    end="",
    sound=True,
    layout="result",
)


def test_untouched_options_are_those_of_animate():
    settings = Settings(animator="motion", motion="relative")
    assert read_options(FRESH, ALL) == JobOptions(settings, layout="result")


def test_all_options():
    form = FRESH._replace(
        background="clip",
        background_type="other",
        compose="alpha",
        reference_frame="auto",
        adapt_scale=True,
        smooth=True,
        crop="auto",
        paste_back=True,
        start="1:02.5",
        end=" 63 ",
        sound=False,
        layout="side-by-side",
    )
    settings = Settings(
        animator="motion",
        motion="relative",
        adapt_scale=True,
        reference_frame="auto",
        smooth=True,
        crop_source="auto",
        crop_driving="auto",
        paste_back=True,
        background_type="other",
        compose="alpha",
    )
    assert read_options(form, ALL) == JobOptions(
        settings, layout="side-by-side", audio="none", start=Fraction(125, 2), end=Fraction(63)
    )


def test_hidden_options_have_no_effect():
    hidden = FRESH._replace(reference_frame="auto", adapt_scale=True)
    masks = read_options(hidden._replace(animator="masks", motion="absolute"), ALL)
    assert masks.settings == Settings(animator="masks")
    absolute = read_options(hidden._replace(motion="absolute"), ALL)
    assert absolute.settings == Settings(animator="motion", motion="absolute")


def test_options_of_other_kinds_of_motion_models():
    form = FRESH._replace(reference_frame="auto", adapt_scale=True, smooth=True)
    tpsmm = read_options(form, TPSMM).settings
    assert tpsmm == Settings(
        animator="motion", motion="relative", reference_frame="auto", smooth=True
    )
    avd = read_options(form._replace(motion="avd", smooth=False), TPSMM).settings
    assert avd == Settings(animator="motion", motion="avd")
    form = form._replace(motion="absolute")
    assert read_options(form, X2FACE).settings == Settings(animator="motion")
    masks = read_options(form._replace(animator="masks"), X2FACE).settings
    assert masks == Settings(animator="masks", smooth=True)


@pytest.mark.parametrize(
    ("capabilities", "animator", "motion", "shown"),
    [
        (ALL, "motion", "relative", (True, True, True, True)),
        (ALL, "motion", "absolute", (True, False, False, True)),
        (ALL, "masks", "relative", (False, False, False, True)),
        (TPSMM, "motion", "relative", (True, True, False, True)),
        (TPSMM, "motion", "avd", (True, False, False, True)),
        (X2FACE, "motion", "absolute", (False, False, False, False)),
        (X2FACE, "masks", "absolute", (False, False, False, True)),
    ],
)
def test_only_controls_that_have_an_effect_are_shown(capabilities, animator, motion, shown):
    assert find_controls(capabilities, animator, motion) == shown


@pytest.mark.parametrize(
    ("kind", "background", "suffix"),
    [
        ("none", None, ".mp4"),
        ("image", "/up/beach.jpg", ".mp4"),
        ("clip", "/up/waves.mp4", ".mp4"),
        ("colour", "#00ff00", ".mp4"),
        ("source", "source", ".mp4"),
        ("transparent", "transparent", ".webm"),
    ],
)
def test_job(kind, background, suffix):
    job = read_job(FRESH._replace(background=kind), Path("/out"))
    output = Path(f"/out/anna--dance{suffix}")
    assert job == Job("/up/anna.png", "/up/dance.mov", background, output)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("none", (None, None)),
        ("image", ("same", "network")),
        ("source", ("same", "network")),
        ("colour", (None, None)),  # colour and transparent have their own defaults
        ("transparent", (None, None)),
    ],
)
def test_type_and_composition_of_a_background(kind, settings):
    options = read_options(FRESH._replace(background=kind), ALL)
    assert (options.settings.background_type, options.settings.compose) == settings


def test_background_without_the_networks_that_paint():
    cutting = ALL._replace(has_painting=False)
    options = read_options(FRESH._replace(background="image"), cutting)
    assert (options.settings.background_type, options.settings.compose) == ("other", "alpha")


@pytest.mark.parametrize(
    ("picked", "color"),
    [
        ("#12ab9f", "#12ab9f"),
        ("rgb(255, 0, 18)", "#ff0012"),
        ("rgba(254.6, 0.4, 17.51, 1)", "#ff0012"),
        ("/etc/hostname", "#/etc/hostname"),  # refused later; never read as a file
    ],
)
def test_colour(picked, color):
    form = FRESH._replace(background="colour", background_color=picked)
    assert read_job(form, Path()).background == color


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({"source": None}, "no source yet"),
        ({"driving": None}, "no driving clip yet"),
        ({"background": "image", "background_image": None}, "no image for the background"),
        ({"background": "clip", "background_clip": None}, "no clip for the background"),
    ],
)
def test_missing_file(missing, reason):
    with pytest.raises(UserError, match=reason):
        read_job(FRESH._replace(**missing), Path())


def test_text_that_is_not_a_time():
    with pytest.raises(UserError, match=r"^--end soon: not a time"):
        read_options(FRESH._replace(end="soon"), ALL)


@pytest.mark.parametrize(
    ("branches", "untrained", "animators", "cuts", "paints", "reasons"),
    [
        (["motion", "masks", "background"], [], ("motion", "masks"), True, True, []),
        (["masks", "background"], [], ("masks",), True, True, []),
        (["motion"], [], ("motion",), False, False, ["without the mask branch"]),
        (["motion", "masks"], [], ("motion", "masks"), True, False, ["without the background"]),
        (
            ["motion", "masks", "background"],
            ["masks.refinement", "background"],
            ("motion",),
            True,
            False,
            ["at step 8 the refinement has not", "at step 8 the background branch has not"],
        ),
    ],
)
def test_capabilities(branches, untrained, animators, cuts, paints, reasons):
    found = find_capabilities(build(branches), untrained, AGE)
    assert found[:3] == (animators, cuts, paints)
    for note, reason in zip(found.notes, reasons, strict=True):
        assert reason in note


def build(branches):
    nulls = {"motion", "masks", "background"} - {*branches}
    return Model(tiny_config(*(f"{name}=null" for name in (*nulls, "discriminator"))))


@pytest.mark.parametrize("kind", KINDS)
def test_capabilities_of_each_kind_of_motion_model(kind):
    model = Model(kind_config(kind, "masks=null", "background=null"))
    found = find_capabilities(model, [], AGE)
    assert found.modes == model.motion.modes
    assert found.has_keypoints == (kind != "x2face")
    assert found.has_scale == (kind != "tpsmm")
    about_motion = [note for note in found.notes if "keypoints" in note]
    expected = ["No relative motion: a motion model of kind x2face has no keypoints."]
    assert about_motion == (expected if kind == "x2face" else [])


def test_a_model_that_cannot_animate():
    with pytest.raises(UserError, match="the refinement has not started"):
        find_capabilities(build(["masks"]), ["masks.refinement"], AGE)


def test_messages_name_files_and_controls_as_the_page_does():
    job = Job("/up/1f/my--photo.png", "/up/2e/dance.mov", "/up/3d/beach.jpg", Path("out.mp4"))
    message = (
        "/up/1f/my--photo.png: not an image; --background /up/3d/beach.jpg goes without "
        "--paste-back, /up/2e/dance.mov with --crop-driving auto"
    )
    assert explain(message, job) == (
        "my--photo.png: not an image; background beach.jpg goes without paste back, dance.mov "
        "with crop driving auto"
    )
    assert explain("--start now: not a time", None) == "start now: not a time"


def test_a_result_of_files_with_long_names():
    form = FRESH._replace(source=f"/up/{'a' * 240}.png", driving=f"/up/{'b' * 240}.mp4")
    job = read_job(form, Path("/tmp"))
    assert job.output == Path("/tmp") / f"{'a' * 40}--{'b' * 40}.mp4"
