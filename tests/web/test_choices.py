"""Values of the page's controls as jobs, and what a model can do."""

from fractions import Fraction
from pathlib import Path

import pytest

from animation.jobs import Job, JobOptions
from animation.mask_sources import is_name
from animation.settings import Settings
from branches.model import Model
from common.errors import UserError
from common.limits import too_many
from media.crops import Box
from tests.helpers.factories import tiny_config
from tests.helpers.lively import KINDS, kind_config
from web.capabilities import Capabilities, find_capabilities
from web.choices import FormValues, explain, find_shown, read_job, read_options, without_hidden

AGE = "step 8"
ALL = Capabilities(
    ("motion", "masks"),
    masks=("model", "person"),
    has_painting=True,
    modes=("relative", "absolute"),
    has_keypoints=True,
    has_scale=True,
    takes_several_sources=False,
    notes=(),
)
X2FACE = ALL._replace(modes=("absolute",), has_keypoints=False, takes_several_sources=True)
TPSMM = ALL._replace(modes=("relative", "absolute", "avd"), has_scale=False)
FRESH = FormValues(
    source="/up/anna.png",
    driving="/up/dance.mov",
    background_image="/up/beach.jpg",
    background_clip="/up/waves.mp4",
    motion="relative",
    crop_source_box="1,2,30,40",
    crop_driving_box="5,6,70,80",
    sound_file="/up/song.mp3",
)


def options_of(form, capabilities=ALL, folder=Path("/out")):
    return read_options(without_hidden(form, capabilities), folder)


def test_untouched_options_are_those_of_animate():
    settings = Settings(animator="motion", motion="relative")
    assert options_of(FRESH) == JobOptions(settings, layout="result")


def test_all_options():
    form = FRESH._replace(
        background="clip",
        background_type="other",
        masks="person",
        compose="alpha",
        edge="plain",
        background_end="hold",
        reference_frame="number",
        reference_number=3,
        adapt_scale=True,
        smooth=True,
        crop_source="auto",
        crop_driving="box",
        paste_back=True,
        start="1:02.5",
        end=" 63 ",
        sound="file",
        layout="side-by-side",
        show_masks=True,
        save_masks=True,
    )
    settings = Settings(
        animator="motion",
        motion="relative",
        adapt_scale=True,
        reference_frame=3,
        smooth=True,
        crop_source="auto",
        crop_driving=Box(5, 6, 70, 80),
        paste_back=True,
        background_type="other",
        background_end="hold",
        masks="person",
        compose="alpha",
        edge="plain",
    )
    assert options_of(form) == JobOptions(
        settings,
        layout="side-by-side",
        show_masks=True,
        save_masks=True,
        audio="/up/song.mp3",
        start=Fraction(125, 2),
        end=Fraction(63),
    )
    assert options_of(form._replace(sound="none")).audio == "none"


def test_hidden_options_have_no_effect():
    hidden = FRESH._replace(reference_frame="auto", adapt_scale=True)
    masks = options_of(hidden._replace(animator="masks", motion="absolute"))
    assert masks.settings == Settings(animator="masks")
    absolute = options_of(hidden._replace(motion="absolute"), ALL)
    assert absolute.settings == Settings(animator="motion", motion="absolute")


def test_options_of_other_kinds_of_motion_models():
    form = FRESH._replace(reference_frame="auto", adapt_scale=True, smooth=True)
    tpsmm = options_of(form, TPSMM).settings
    assert tpsmm == Settings(
        animator="motion", motion="relative", reference_frame="auto", smooth=True
    )
    avd = options_of(form._replace(motion="avd", smooth=False), TPSMM).settings
    assert avd == Settings(animator="motion", motion="avd")
    form = form._replace(motion="absolute")
    assert options_of(form, X2FACE).settings == Settings(animator="motion")
    masks = options_of(form._replace(animator="masks"), X2FACE).settings
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
def test_only_controls_of_motion_that_have_an_effect_are_shown(
    capabilities, animator, motion, shown
):
    found = find_shown(FRESH._replace(animator=animator, motion=motion), capabilities)
    names = ("motion", "reference_frame", "adapt_scale", "smooth")
    assert tuple(name in found for name in names) == shown


@pytest.mark.parametrize(
    ("chosen", "is_shown"),
    [
        ({}, False),
        ({"show_masks": True}, False),  # the result stands alone
        ({"show_masks": True, "layout": "side-by-side"}, True),
        ({"save_masks": True}, True),
        *(({"background": kind}, True) for kind in ("image", "clip", "colour", "transparent")),
    ],
)
def test_masks_are_smoothed_without_keypoints(chosen, is_shown):
    form = FRESH._replace(motion="absolute", smooth=True, **chosen)
    assert ("smooth" in find_shown(form, X2FACE)) == is_shown
    assert options_of(form, X2FACE).settings.smooth == is_shown


ONCE_CHOSEN = (  # controls that are hidden until something is chosen
    *("background_image", "background_clip", "background_color", "background_type"),
    *("background_end", "compose", "reference_number", "crop_source_box", "crop_driving_box"),
    *("sound_file", "show_masks", "more_sources", "masks", "masks_files", "background_masks"),
    *("background_masks_files", "edge"),
)
PAINTED = ["background_type", "masks", "background_masks", "compose"]


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ({}, []),
        ({"background": "image"}, ["background_image", *PAINTED]),
        ({"background": "clip"}, ["background_clip", "background_end", *PAINTED]),
        ({"background": "source"}, PAINTED),
        ({"background": "source", "masks": "person"}, [*PAINTED, "edge"]),
        ({"background": "source", "compose": "alpha"}, [*PAINTED, "edge"]),
        ({"background": "source", "masks": "person", "compose": "network"}, PAINTED),
        ({"background": "source", "masks": "files"}, [*PAINTED, "masks_files", "edge"]),
        (
            {"background": "source", "background_masks": "files"},
            [*PAINTED, "background_masks_files"],
        ),
        (
            {"background": "source", "background_type": "other", "background_masks": "files"},
            ["background_type", "masks", "compose"],
        ),
        ({"background": "colour"}, ["background_color", "masks", "edge"]),
        ({"background": "transparent"}, ["masks", "edge"]),
        ({"save_masks": True}, ["masks"]),
        ({"show_masks": True}, []),
        ({"show_masks": True, "layout": "side-by-side"}, ["masks", "show_masks"]),
        ({"reference_frame": "number"}, ["reference_number"]),
        ({"reference_frame": "number", "motion": "absolute"}, []),
        ({"crop_source": "box"}, ["crop_source_box"]),
        ({"crop_driving": "box"}, ["crop_driving_box"]),
        ({"sound": "file"}, ["sound_file"]),
        ({"sound": "file", "format": "gif"}, []),
        ({"layout": "side-by-side"}, ["show_masks"]),
    ],
)
def test_controls_that_are_shown_once_something_is_chosen(chosen, shown):
    found = find_shown(FRESH._replace(**chosen), ALL)
    assert found & {*ONCE_CHOSEN} == {*shown}
    assert ("sound" in found) == (chosen.get("format") != "gif")
    assert {"source", "driving", "background", "start", "crop_source", "save_masks"} <= found


def test_controls_of_a_model_that_can_do_little():
    little = X2FACE._replace(animators=("motion",), masks=(), has_painting=False)
    found = find_shown(FRESH._replace(motion="absolute", layout="side-by-side"), little)
    assert "more_sources" in found
    assert not found & {"animator", "motion", "reference_frame", "adapt_scale", "smooth"}
    found = find_shown(FRESH._replace(motion="absolute", background="source"), little)
    assert "compose" not in found
    assert "edge" in found
    forged = FRESH._replace(motion="absolute", background="source", compose="network")
    form = without_hidden(forged, little)
    assert (form.compose, form.motion) == ("automatic", None)


@pytest.mark.parametrize("number", [None, -1, 2.5])
def test_reference_frames_that_there_cannot_be(number):
    with pytest.raises(UserError, match=r"^Number of the reference frame: give that of a driving"):
        options_of(FRESH._replace(reference_frame="number", reference_number=number))


def test_a_box_that_is_none():
    with pytest.raises(UserError, match=r"^--crop-source 1,2: not four numbers"):
        options_of(FRESH._replace(crop_source="box", crop_source_box="1,2"))


@pytest.mark.parametrize(
    ("form", "background", "name"),
    [
        ("mp4", "none", "anna--dance.mp4"),
        ("webm", "none", "anna--dance.webm"),
        ("gif", "none", "anna--dance.gif"),
        ("png", "none", "anna--dance"),
        ("mp4", "transparent", "anna--dance.webm"),
        ("png", "transparent", "anna--dance"),
    ],
)
def test_formats(form, background, name):
    job = read_job(FRESH._replace(format=form, background=background), Path("/out"))
    assert job.output == Path("/out") / name


def test_a_folder_of_frames_whose_name_would_have_a_suffix():
    job = read_job(FRESH._replace(format="png", driving="/up/a.b.mov"), Path("/out"))
    assert job.output == Path("/out/anna--a_b")


def test_more_sources():
    job = read_job(FRESH._replace(more_sources=["/up/b.png", "/up/c.png"]), Path("/out"))
    assert job.more_sources == ("/up/b.png", "/up/c.png")


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


@pytest.mark.parametrize("kind", ["none", "image", "source", "colour", "transparent"])
def test_what_is_automatic_is_left_to_the_animator(kind):
    settings = options_of(FRESH._replace(background=kind)).settings
    assert (settings.background_type, settings.compose, settings.edge) == (None, None, None)
    assert (settings.masks, settings.background_masks) == (None, None)


def write_masks(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(name)
    return [str(folder / name) for name in names]


def test_uploaded_masks(tmp_path):
    one = write_masks(tmp_path / "up", "masks.mp4")
    more = write_masks(tmp_path / "up/2", "2.png", "1.png")
    form = FRESH._replace(
        **{"background": "image", "masks": "files", "masks_files": one},
        **{"background_masks": "files", "background_masks_files": more},
    )
    settings = options_of(form, folder=tmp_path).settings
    assert settings.masks == Path(one[0])
    assert settings.background_masks == tmp_path / "background-pictures"
    found = {path.name: path.read_text() for path in (tmp_path / "background-pictures").iterdir()}
    assert found == {"1.png": "1.png", "2.png": "2.png"}
    # Copies of all who wait would fill the disk.
    assert (tmp_path / "background-pictures" / "1.png").samefile(more[1])


def test_uploaded_masks_where_a_file_has_one_name_only(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    form = FRESH._replace(
        **{"background": "image", "masks": "files"},
        masks_files=write_masks(tmp_path / "up", "2.png", "1.png"),
    )
    folder = options_of(form, folder=tmp_path).settings.masks
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "1.png": "1.png",
        "2.png": "2.png",
    }


def test_a_file_of_masks_that_is_called_like_a_detector(tmp_path):
    """It is a file all the same."""
    form = FRESH._replace(background="image", masks="files", masks_files=["person"])
    assert not is_name(options_of(form).settings.masks)


def test_masks_of_one_name(tmp_path):
    files = [*write_masks(tmp_path / "1", "a.png"), *write_masks(tmp_path / "2", "a.png")]
    form = FRESH._replace(background="image", masks="files", masks_files=files)
    with pytest.raises(UserError, match="Two masks have the same name"):
        options_of(form, folder=tmp_path)


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
        ({"sound": "file", "sound_file": None}, "no sound yet"),
        ({"background": "image", "masks": "files"}, "no masks yet"),
        ({"background": "image", "background_masks": "files"}, "no masks yet"),
    ],
)
def test_missing_file(missing, reason):
    with pytest.raises(UserError, match=reason):
        read_both(FRESH._replace(**missing))


def read_both(form):
    return read_job(form, Path()), options_of(form)


def test_text_that_is_not_a_time():
    with pytest.raises(UserError, match=r"^--end soon: not a time"):
        options_of(FRESH._replace(end="soon"), ALL)


@pytest.mark.parametrize(
    ("branches", "untrained", "animators", "paints", "reasons"),
    [
        (["motion", "masks", "background"], [], ("motion", "masks"), True, []),
        (["masks", "background"], [], ("masks",), True, []),
        (["motion"], [], ("motion",), False, ["without the background"]),
        (["motion", "masks"], [], ("motion", "masks"), False, ["without the background"]),
        (
            ["motion", "masks", "background"],
            ["masks.refinement", "background"],
            ("motion",),
            False,
            ["at step 8 the refinement has not", "at step 8 the background branch has not"],
        ),
    ],
)
def test_capabilities(branches, untrained, animators, paints, reasons):
    found = find_capabilities(build(branches), untrained, AGE, ("person",))
    assert found[:3] == (animators, ("person",), paints)
    for note, reason in zip(found.notes, reasons, strict=True):
        assert reason in note


def build(branches):
    nulls = {"motion", "masks", "background"} - {*branches}
    return Model(tiny_config(*(f"{name}=null" for name in (*nulls, "discriminator"))))


@pytest.mark.parametrize("kind", KINDS)
def test_capabilities_of_each_kind_of_motion_model(kind):
    model = Model(kind_config(kind, "masks=null", "background=null"))
    found = find_capabilities(model, [], AGE, ())
    assert found.modes == model.motion.modes
    assert found.has_keypoints == (kind != "x2face")
    assert found.has_scale == (kind != "tpsmm")
    assert found.takes_several_sources == (kind == "x2face")
    assert any(note.startswith("Another background needs masks of yours") for note in found.notes)
    about_motion = [note for note in found.notes if "keypoints" in note]
    expected = [
        "A motion model of kind x2face has no keypoints: the source takes the driving pose itself "
        "(absolute motion), without a reference frame or a scale, and only masks can be smoothed."
    ]
    assert about_motion == (expected if kind == "x2face" else [])


def test_a_model_that_cannot_animate():
    with pytest.raises(UserError, match="the refinement has not started"):
        find_capabilities(build(["masks"]), ["masks.refinement"], AGE, ())


def test_messages_name_files_and_controls_as_the_page_does():
    form = FRESH._replace(
        source="/up/1f/my--photo.png",
        driving="/up/2e/dance.mov",
        background_image="/up/3d/beach.jpg",
        more_sources=["/up/4c/more.png"],
        masks_files=["/up/5d/masks.mp4"],
    )
    message = (
        "/up/1f/my--photo.png: not an image; --background /up/3d/beach.jpg goes without "
        "--paste-back, /up/2e/dance.mov with --crop-driving auto, /up/4c/more.png, /up/song.mp3, "
        "/up/5d/masks.mp4, /out/pictures"
    )
    assert explain(message, form, Path("/out")) == (
        "my--photo.png: not an image; background beach.jpg goes without paste back, dance.mov "
        "with crop driving auto, more.png, song.mp3, masks.mp4, pictures"
    )
    assert explain("--start now: not a time", FormValues(), Path("/out")) == "start now: not a time"


def test_advice_for_whoever_started_the_page_is_left_out():
    assert explain(f"a.png: {too_many(9, 4)}", FRESH, Path("/out")) == (
        "a.png: 9 in all; at most 4 are read; give a smaller one"
    )
    heic = "a.heic: this is HEIC; run `pip install pillow-heif` if it is missing, or save the"
    assert explain(heic, FRESH, Path("/out")) == "a.heic: this is HEIC; save the"


def test_a_result_of_files_with_long_names():
    form = FRESH._replace(source=f"/up/{'a' * 240}.png", driving=f"/up/{'b' * 240}.mp4")
    job = read_job(form, Path("/tmp"))
    assert job.output == Path("/tmp") / f"{'a' * 40}--{'b' * 40}.mp4"
