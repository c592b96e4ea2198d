"""animate.py --masks: figures cut out by a detector or by given masks, for any checkpoint."""

import sys

import numpy as np
import pytest
from PIL import Image

import animate
from animation import Animator, Settings
from animation.figure_masks import opacity_of_picture
from configs.loading import dump_config
from media.video import open_clip
from metrics.detectors.build import REGION_FINDERS
from tests.helpers.animations import columns, picture, pngs, run_to_folder, write_files
from tests.helpers.detectors import Contrast, contrast
from tests.helpers.published_files import FOMM, TPSMM, X2FACE, write_published
from tests.helpers.runs import call, error_line, step_file

GREEN = "#00ff00"
PLAIN = ("--edge", "plain")
MODELS = ("no-masks-background", "all")  # without the mask branch, and with it


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_run):
    """The files of the other tests, masks/ for the five animated frames, and mask.png."""
    folder = write_files(tmp_path_factory.mktemp("files"), step_file(tiny_run, 8))
    (folder / "masks").mkdir()
    for number in range(5):
        Image.fromarray(disc(number)).save(folder / "masks" / f"{number}.png")
    Image.fromarray(disc(2)).save(folder / "mask.png")
    return folder


def disc(number, size=(32, 32)):
    """A mask, H x W x 3: a disc with a soft edge that moves to the right."""
    y, x = np.ogrid[: size[0], : size[1]]
    distance = np.hypot(y - 15.5, x - 10 - 2 * number)
    level = np.clip((9 - distance) * 64 + 128, 0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


@pytest.fixture
def run(files):
    def to_folder(output, *arguments, model="no-masks-background"):
        return run_to_folder(files, model, output, *arguments)

    return to_folder


@pytest.fixture
def brightness(monkeypatch):
    """Detectors to which brightness is a figure, in place of both that could be installed."""
    for name in ("person", "saliency"):
        monkeypatch.setitem(REGION_FINDERS, name, Contrast)


@pytest.fixture
def no_detectors(monkeypatch):
    for package in ("ai_edge_litert.interpreter", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)


# Masks in files


@pytest.mark.parametrize("model", MODELS)
def test_given_masks_are_the_opacity(run, tmp_path, files, model):
    plain = run(tmp_path / "plain", model=model)
    options = ("--background", GREEN, "--masks", files / "masks", *PLAIN)
    result = run(tmp_path / "green", *options, model=model)
    for number in range(5):
        alpha = opacity_of_picture(disc(number))[..., None]
        expected = alpha * plain[number] + (1 - alpha) * np.array((0, 255, 0))
        assert np.abs(result[number] - expected).max() <= 1


def test_masks_as_a_video_or_of_another_size(run, tmp_path, files):
    (tmp_path / "large").mkdir()
    for number in range(5):
        large = Image.fromarray(disc(number)).resize((64, 64))
        large.save(tmp_path / "large" / f"{number}.png")
    options = ("--background", "transparent", "--masks")
    expected = run(tmp_path / "a", *options, files / "masks")[..., 3].astype(int)
    found = run(tmp_path / "b", *options, tmp_path / "large")[..., 3].astype(int)
    assert np.abs(found - expected).mean() < 3
    assert 0 < expected.mean() < 255


@pytest.mark.parametrize(("batch_size", "model"), [(1, MODELS[0]), (2, MODELS[1])])
def test_masks_do_not_depend_on_the_batches(run, tmp_path, files, batch_size, model):
    options = ("--background", files / "short", "--masks", files / "masks", "--smooth")
    options = (*options, "--background-type", "other")
    expected = run(tmp_path / "a", *options, model=model).astype(int)
    found = run(tmp_path / "b", *options, "--batch-size", batch_size, model=model).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_edge_of_the_figure_is_cleaned(run, tmp_path, files):
    """By default for given masks; opaque and hidden pixels do not change."""
    options = ("--background", GREEN, "--masks", files / "masks")
    plain = run(tmp_path / "plain", *options, *PLAIN)
    clean = run(tmp_path / "clean", *options, "--edge", "clean")
    assert np.array_equal(run(tmp_path / "default", *options), clean)
    alpha = np.stack([disc(number)[..., 0] for number in range(5)])
    is_edge = (alpha > 0) & (alpha < 255)
    assert np.array_equal(plain[~is_edge], clean[~is_edge])
    assert (plain[is_edge] != clean[is_edge]).any()
    cut = run(tmp_path / "cut", "--background", "transparent", "--masks", files / "masks")
    figure = run(tmp_path / "figure")
    assert (cut[is_edge][:, :3] != figure[is_edge]).any()
    assert np.array_equal(cut[alpha == 255][:, :3], figure[alpha == 255])


def test_the_model_s_own_masks_stay_as_they_were(run, tmp_path, files):
    """Their edge is not cleaned unless that is asked for."""
    options = ("--background", GREEN)
    plain = run(tmp_path / "a", *options, model="all")
    assert np.array_equal(run(tmp_path / "b", *options, *PLAIN, model="all"), plain)
    named = run(tmp_path / "c", *options, "--masks", "model", model="all")
    assert np.array_equal(named, plain)
    assert not np.array_equal(run(tmp_path / "d", *options, "--edge", "clean", model="all"), plain)


# Figures in the background


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("background", ["other.png", "source"])
def test_figure_of_the_background_is_removed(run, tmp_path, files, capsys, model, background):
    """Where neither figure is, the background keeps its pixels; its own figure is gone."""
    name = "source.png" if background == "source" else background
    path = background if background == "source" else files / background
    options = ("--background", path, "--masks", files / "masks", "--compose", "alpha")
    options = (*options, "--background-masks", files / "mask.png")
    result = run(tmp_path / "out", *options, model=model)
    notes = capsys.readouterr().out
    hole = disc(2)[..., 0] > 0
    near = np.abs(np.arange(32) - 15.5) < 13
    for number in range(5):
        own = disc(number)[..., 0] > 0
        kept = ~own & ~(hole | np.outer(near, np.ones(32, bool)))
        assert kept.any()
        assert np.array_equal(result[number][kept], picture(files / name)[kept])
        removed = hole & ~own
        assert (result[number][removed] != picture(files / name)[removed]).any() or number == 2
    assert ("biharmonic inpainting of scikit-image" in notes) == (model == MODELS[0])


def test_masks_of_a_background_clip_stay_in_step(run, tmp_path, files):
    """The clip has 3 frames and starts again; every mask is all white in one third."""
    (tmp_path / "masks").mkdir()
    for number in range(3):
        mask = np.zeros((32, 32, 3), np.uint8)
        mask[:, 10 * number + 2 : 10 * number + 8] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    black = tmp_path / "black"
    black.mkdir()
    for number in range(5):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(black / f"{number}.png")
    options = ("--background", files / "short", "--masks", black)
    options = (*options, "--background-masks", tmp_path / "masks")
    clip = open_clip(files / "short").read([0, 1, 2, 0, 1])
    for batch_size in (8, 2):
        result = run(tmp_path / "out", *options, "--batch-size", batch_size)
        for number, (shown, expected) in enumerate(zip(result, clip, strict=True)):
            start = 10 * (number % 3) + 2
            kept = np.ones(32, bool)
            kept[start - 2 : start + 8] = False  # the soft edge and the margin
            assert np.array_equal(shown[:, kept], expected[:, kept])
            assert not np.array_equal(shown[:, ~kept], expected[:, ~kept])


# Detectors


def test_a_detector_cuts_out_any_checkpoint_s_figure(run, tmp_path, capsys, brightness):
    plain = run(tmp_path / "plain")
    result = run(tmp_path / "out", "--background", GREEN, *PLAIN)
    assert "masks of the animated frames: brightness" in capsys.readouterr().out
    level = contrast(plain)
    assert (level > 0.76).any()
    assert np.array_equal(result[level > 0.76], plain[level > 0.76])
    assert (result[level < 0.24] == (0, 255, 0)).all()


def test_detectors_by_name(run, tmp_path, files, brightness):
    """`saliency` finds something in every picture, so by itself it removes nothing from one."""
    options = ("--background", files / "other.png", *PLAIN)
    person = run(tmp_path / "person", *options, "--masks", "person")
    saliency = run(tmp_path / "saliency", *options, "--masks", "saliency")
    other = run(tmp_path / "other", *options, "--masks", "person", "--background-type", "other")
    assert np.array_equal(saliency, other)
    assert not np.array_equal(person, other)
    asked = ("--masks", "saliency", "--background-type", "same")
    assert np.array_equal(run(tmp_path / "same", *options, *asked), person)
    painted = ("--masks", "person", "--compose", "network")
    shown = run(tmp_path / "painted", *options[:2], *painted, model="all")
    own = run(tmp_path / "own", *options[:2], model="all")
    assert shown.shape == own.shape
    assert not np.array_equal(shown, own)


def test_frames_without_a_figure_are_counted(run, tmp_path, files, capsys):
    (tmp_path / "black").mkdir()
    for number in range(5):
        mask = disc(number) if number < 2 else np.zeros((32, 32, 3), np.uint8)
        Image.fromarray(mask).save(tmp_path / "black" / f"{number}.png")
    run(tmp_path / "out", "--background", GREEN, "--masks", tmp_path / "black")
    assert "no figure in 3 of 5 frames; other --masks may find it" in capsys.readouterr().out
    run(tmp_path / "out", "--background", GREEN, "--masks", files / "masks")
    assert "no figure" not in capsys.readouterr().out


def test_masks_are_shown_and_saved(run, tmp_path, files, brightness):
    """Without a background, too, and for a checkpoint without the mask branch."""
    masks = ("--masks", files / "masks")
    plain = run(tmp_path / "plain")
    saved = run(tmp_path / "out", *masks, "--save-masks")
    assert np.array_equal(saved, plain)
    expected = np.stack([disc(number) for number in range(5)])
    assert np.array_equal(pngs(tmp_path / "out-masks"), expected)
    shown = columns(run(tmp_path / "shown", *masks, "--layout", "side-by-side", "--show-masks"))
    assert len(shown) == 4  # nobody gave a mask of the source
    assert np.array_equal(shown[3], expected)
    layout = ("--layout", "side-by-side", "--show-masks")
    assert len(columns(run(tmp_path / "found", *layout))) == 5


def test_mov_with_its_masks(files, tmp_path):
    """The figure is ProRes 4444, its masks are an opaque video of the same kind."""
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    options = ("--background", "transparent", "--masks", files / "masks", "--save-masks")
    output = ("--output", tmp_path / "cut.mov")
    assert call(animate, "--checkpoint", files / "all.pt", *inputs, *options, *output) == 0
    saved = open_clip(tmp_path / "cut-masks.mov").read(range(5)).astype(int)
    assert np.abs(saved - np.stack([disc(number) for number in range(5)])).max() <= 8


# Published files


@pytest.mark.parametrize("project", [FOMM, TPSMM, X2FACE], ids=lambda project: project.name)
def test_published_files_swap_backgrounds(files, tmp_path, project, brightness):
    """A file that holds neither masks nor a background branch, as its authors wrote it."""
    config = project.config("seed=5")
    path = write_published(tmp_path / "model.pth.tar", project, project.content(config))
    (tmp_path / "config.yaml").write_text(dump_config(config))
    model = ("--checkpoint", path, "--config", tmp_path / "config.yaml")
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    smooth = ("--smooth",)  # for X2Face, which has no keypoints, the masks alone
    for background in (files / "other.png", "source", "transparent", "navy"):
        output = tmp_path / "out"
        options = ("--output", output, "--background", background, *smooth)
        assert call(animate, *model, *inputs, *options) == 0
        assert pngs(output).shape == (5, 32, 32, 4 if background == "transparent" else 3)
    path.unlink()


def test_python_api(files, brightness):
    animator = Animator.load(files / "no-masks-background.pt", device="cpu", precision="float32")
    frames = open_clip(files / "driving").read(range(5))
    for masks in ("person", str(files / "masks"), files / "masks"):
        result = np.stack(
            [
                *animator.animate(
                    picture(files / "source.png"), frames, "lime", Settings(masks=masks)
                )
            ]
        )
        assert result.shape == (5, 32, 32, 3)
        assert (result == (0, 255, 0)).all(axis=3).any()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "--background lime --masks mask.png",
            "--masks mask.png: has 1 masks, and 5 driving frames are animated; give a clip",
        ),
        ("--background lime --masks short", "--masks short: has 3 masks, and 5 driving frames"),
        (
            "--background lime --masks driving --start 0.04",
            "--masks driving: has 5 masks, and 4 driving frames are animated",
        ),
        ("--background lime --masks missing", "--masks missing: no such file or folder; use model"),
        ("--background lime --masks text.png", "--masks text.png: not an image: the file holds"),
        (
            "--background lime --masks model",
            "--masks model: the checkpoint was trained without the mask branch; use person",
        ),
        (
            "--background other.png --masks driving --background-masks driving",
            "--background-masks driving: has 5 masks, and the background 1 picture; give one mask",
        ),
        (
            "--background short --masks driving --background-masks mask.png",
            "--background-masks mask.png: has 1 masks, and the background 3 frames; give one mask",
        ),
        ("--masks driving", "--masks says what to do with a --background; give one"),
        ("--edge clean", "--edge says what to do with a --background; give one"),
        ("--background-masks mask.png", "--background-masks says what to do with a --background"),
        (
            "--background lime --masks driving --background-masks mask.png",
            "--background-masks mask.png: the colour lime has no figure to remove; leave it out",
        ),
        (
            "--background transparent --masks driving --background-masks mask.png",
            "--background-masks mask.png: a transparent background has no picture; leave it out",
        ),
        (
            "--background b.png --masks driving --background-masks mask.png "
            "--background-type other",
            "--background-masks mask.png: --background-type other removes no figure; leave it out",
        ),
        (
            "--background b.png --masks driving --compose network",
            "--compose network: the checkpoint was trained without the background branch; use",
        ),
        (
            "--checkpoint all.pt --background b.png --edge clean",
            "--edge clean: BGRefine paints the picture, the figure's edge too; use --compose alpha",
        ),
        ("--background lime --masks masks --output masks", "--output masks would replace"),
        ("--background lime --masks masks/0.png --output masks", "--output masks would replace"),
        (
            "--background lime",
            "--background: the checkpoint was trained without the mask branch, and no detector",
        ),
        (
            "--background lime --masks person",
            "--masks person: ai_edge_litert.interpreter cannot be imported",
        ),
        (
            "--save-masks",
            "--masks: the checkpoint was trained without the mask branch, and no detector",
        ),
        (
            "--background transparent --masks driving --output o.mp4",
            "o.mp4: .mp4 has no transparency; use .webm, .mov, or a name without suffix",
        ),
    ],
)
def test_bad_input(files, tmp_path, monkeypatch, capsys, no_detectors, arguments, expected):
    """Nothing is written."""
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "b.png").write_bytes((files / "other.png").read_bytes())
    before = sorted(tmp_path.iterdir())
    defaults = "--checkpoint no-masks-background.pt --source source.png --driving driving"
    assert call(animate, *f"{defaults} --output out {arguments}".split()) == 2
    assert expected in error_line(capsys, "animate.py")
    assert sorted(tmp_path.iterdir()) == before


def test_given_masks_need_no_detector(run, tmp_path, files, no_detectors):
    """Then nothing finds the figure in a picture, which is used as it is."""
    options = ("--masks", files / "masks", "--background")
    run(tmp_path / "green", *options, GREEN)
    result = run(tmp_path / "a", *options, files / "other.png")
    kind = ("--background-type", "other")
    assert np.array_equal(run(tmp_path / "b", *options, files / "other.png", *kind), result)


def test_a_file_with_the_name_of_a_colour(run, tmp_path, files, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "navy").mkdir()
    result = run(tmp_path / "out", "--background", "navy", "--masks", files / "masks", *PLAIN)
    assert "--background navy: taken for the colour; for the file write ./navy" in (
        capsys.readouterr().out
    )
    assert (result[0][0, 0] == (0, 0, 128)).all()
