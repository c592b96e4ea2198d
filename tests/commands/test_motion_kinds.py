"""animate.py and reconstruct.py with every kind of motion model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import animate
import reconstruct
from animation import Animator, Settings
from tests.helpers.animations import SIDE, picture, pngs
from tests.helpers.lively import KINDS, kind_config, write_checkpoint
from tests.helpers.media import numbered_frame, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line

FURTHER = [kind for kind in KINDS if kind != "fomm"]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """source.png, other.png, wide.png (50 x 30), driving/ (5 frames), data/test/ (2 clips); and a
    checkpoint of each kind, with masks and background.
    """
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(numbered_frame(21, (SIDE, SIDE))).save(folder / "source.png")
    Image.fromarray(numbered_frame(42, (SIDE, SIDE))).save(folder / "other.png")
    Image.fromarray(numbered_frame(42, (30, 50))).save(folder / "wide.png")
    write_frame_folder(folder / "driving", 5, (SIDE, SIDE))
    for name in ("a", "b"):
        write_clip(folder / "data" / "test" / f"{name}.mp4", 4, (SIDE, SIDE))
    for kind in FURTHER:
        avd = ("motion.avd.code=8",) if kind == "tpsmm" else ()
        write_checkpoint(folder / f"{kind}.pt", kind_config(kind, f"data.image_size={SIDE}", *avd))
    return folder


@pytest.fixture
def run(media, tmp_path):
    """Animate source.png by driving/ into a folder; returns the exit code and the folder."""

    def run(kind, *arguments, source="source.png"):
        output = tmp_path / "-".join(
            ("out", kind, *(Path(str(a).strip("-")).stem for a in arguments[:2]))
        )
        files = ("--source", media / source, "--driving", media / "driving", "--output", output)
        return call(animate, "--checkpoint", media / f"{kind}.pt", *files, *arguments), output

    return run


@pytest.mark.parametrize("kind", FURTHER)
def test_animate(media, run, capsys, kind):
    """As the Python API does; each mode of motion, and masks, gives frames of its own."""
    animator = Animator.load(media / f"{kind}.pt", device="cpu")
    capsys.readouterr()
    found = {}
    for motion in (None, *animator.model.motion.modes):
        options = () if motion is None else ("--motion", motion)
        code, output = run(kind, *options)
        assert code == 0
        found[motion] = pngs(output)
        frames = animator.animate(
            media / "source.png", media / "driving", settings=Settings(motion=motion)
        )
        assert np.array_equal(found[motion], list(frames))
    assert np.array_equal(found[None], found[animator.model.motion.modes[0]])
    printed = capsys.readouterr().out
    assert ("motion absolute: a motion model of kind x2face has no other" in printed) == (
        kind == "x2face"
    )
    code, output = run(kind, "--animator", "masks")
    assert code == 0
    found["masks"] = pngs(output)
    different = [frames for way, frames in found.items() if way is not None]
    for i, frames in enumerate(different):
        for other in different[i + 1 :]:
            assert np.abs(frames.astype(int) - other).max() > 0


@pytest.mark.parametrize("kind", FURTHER)
def test_animate_on_another_background(media, run, kind):
    code, output = run(kind, "--background", media / "other.png", "--layout", "demo")
    assert code == 0
    assert pngs(output).shape == (5, SIDE, 6 * SIDE, 3)


def test_adapt_scale_is_always_on_for_tpsmm(run, capsys):
    plain, scaled = run("tpsmm"), run("tpsmm", "--adapt-scale")
    assert plain[0] == scaled[0] == 0
    assert np.array_equal(pngs(plain[1]), pngs(scaled[1]))
    line = "--adapt-scale: a motion model of kind tpsmm always does so"
    assert capsys.readouterr().out.splitlines().count(line) == 1


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("x2face", ("--motion", "relative"), "has no keypoints, which it needs; use absolute"),
        ("x2face", ("--reference-frame", "auto"), "--reference-frame is for relative motion"),
        ("x2face", ("--adapt-scale",), "--adapt-scale is for relative motion"),
        ("x2face", ("--smooth",), "--smooth filters keypoints"),
        ("monkey_net", ("--motion", "avd"), "--motion avd: the motion model, of kind monkey_net"),
    ],
)
def test_what_a_kind_cannot_do_is_refused(run, capsys, kind, arguments, expected):
    code, output = run(kind, *arguments)
    assert code == 2
    assert expected in error_line(capsys, "animate.py")
    assert not output.exists()


# Several sources


def test_more_sources(media, run, capsys):
    """They are fitted like the source, and the list in Python means the same."""
    code, output = run("x2face", "--more-sources", media / "other.png", media / "wide.png")
    assert code == 0
    printed = capsys.readouterr().out
    assert "3 sources make one figure, whose pixels move" in printed
    assert "wide.png: 50 x 30 pixels, cropped at the centre" in printed
    animator = Animator.load(media / "x2face.pt", device="cpu")
    sources = [media / "source.png", picture(media / "other.png"), str(media / "wide.png")]
    found = list(animator.animate(sources, media / "driving"))
    assert np.array_equal(pngs(output), found)
    alone = list(animator.animate(sources[0], media / "driving"))
    assert np.abs(np.array(alone).astype(int) - found).max() > 1


def test_more_sources_with_many_clips(media, tmp_path):
    files = ("--source", media / "source.png", "--more-sources", media / "other.png")
    clips = ("--driving", media / "data" / "test", "--output", tmp_path / "out")
    assert call(animate, "--checkpoint", media / "x2face.pt", *files, *clips) == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.mp4")} == {"source--a", "source--b"}


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("tpsmm", (), "--more-sources: the motion model, of kind tpsmm, takes one source"),
        ("x2face", ("--animator", "masks"), "--more-sources: the animator masks takes one source"),
    ],
)
def test_more_sources_than_can_be_used(media, run, capsys, kind, arguments, expected):
    assert run(kind, *arguments, "--more-sources", media / "other.png")[0] == 2
    assert expected in error_line(capsys, "animate.py")


def test_more_sources_of_what(media, tmp_path, capsys):
    more = ("--checkpoint", media / "x2face.pt", "--more-sources", media / "other.png")
    folder = ("--source", media, "--driving", media / "driving", "--output", tmp_path / "out")
    for files in ((), folder):
        assert call(animate, *more, *files) == 2
        assert "--more-sources: shows the figure of one --source" in error_line(
            capsys, "animate.py"
        )


def test_another_source_is_never_replaced(media, run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.png").write_bytes((media / "other.png").read_bytes())
    files = ("--source", media / "source.png", "--driving", media / "driving")
    more = ("--more-sources", tmp_path / "out" / "other.png", "--output", tmp_path / "out")
    assert call(animate, "--checkpoint", media / "x2face.pt", *files, *more) == 2
    assert "would replace --more-sources" in error_line(capsys, "animate.py")


# Evaluation


@pytest.mark.parametrize("kind", FURTHER)
def test_reconstruct(media, tmp_path, capsys, kind):
    """With the model's own figure as the salient region, where its motion has a background."""
    output = tmp_path / "results"
    files = ("--checkpoint", media / f"{kind}.pt", "--data-root", media / "data")
    assert call(reconstruct, *files, "--salient", "model", "--output", output) == 0
    report = json.loads((output / "metrics.json").read_text())
    assert report["num_clips"] == 2
    assert 0 < report["metrics"]["l1"]["over_frames"]["mean"] < 1
    left_out = (
        "no salient metrics: a motion model of kind x2face has no background weight; --salient "
        "person or saliency finds the figure"
    )
    assert report["left_out"] == ([left_out] if kind == "x2face" else [])
    assert (left_out in capsys.readouterr().out.splitlines()) == (kind == "x2face")
    assert ("salient" in report["measured_with"]) == (kind != "x2face")
