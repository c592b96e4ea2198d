"""docs/drawing/motion_models.py: the figures of tiny models, and their parts by hand."""

import math

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from branches.outputs import MotionMaps
from checkpoints.folder import step_path
from common.cli import run_entry_point
from modules.geometry import coordinate_grid
from modules.keypoint_detector import Keypoints
from tests.helpers.lively import kind_config, write_checkpoint

plt = pytest.importorskip("matplotlib.pyplot")

from docs.drawing import motion_models  # noqa: E402
from docs.drawing.model_cuts import FRACTION, steps  # noqa: E402
from docs.drawing.monkey_net import colored_heatmaps, draw_ellipses  # noqa: E402
from docs.drawing.tpsmm import plate_keypoints  # noqa: E402

ROWS = {
    "monkey-net": ("monkey_net",),
    "monkey-net-prioritycut": ("monkey_net", "motion.dense_motion.occlusion=true"),
    "x2face": ("x2face",),
}
PLATES = ("tpsmm", "motion.background_motion.start_epoch=0")
FIGURES = ("monkey_net", "x2face", "x2face_sources", "tpsmm_plates", "tpsmm", "model_cuts")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The rows of seed 0, and plates/, a run of kind tpsmm whose background moves."""
    folder = tmp_path_factory.mktemp("runs")
    names = {f"{row}-0": sizes for row, sizes in ROWS.items()} | {"plates": PLATES}
    for name, (kind, *overrides) in names.items():
        path = step_path(folder / name, 8)
        path.parent.mkdir(parents=True)
        config = kind_config(
            kind, "data.image_size=32", "masks=null", "background=null", *overrides
        )
        write_checkpoint(path, config)
    return folder


def call(*arguments):
    parser = motion_models.build_parser()
    return run_entry_point(motion_models.main, parser, [str(a) for a in arguments])


def test_every_figure_is_drawn(runs, tmp_path):
    arguments = ("--runs", runs, "--plates", runs / "plates", "--output", tmp_path)
    assert call(*arguments) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(FIGURES)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(10**6)) > 50


def test_a_run_of_another_kind(runs, tmp_path, capsys):
    arguments = ("--runs", runs, "--plates", runs / "x2face-0", "--output", tmp_path)
    assert call(*arguments) == 2
    assert "x2face-0: trained with motion kind x2face; give a run of kind tpsmm" in (
        capsys.readouterr().err
    )


def test_a_folder_without_a_run(runs, tmp_path, capsys):
    assert call("--runs", tmp_path, "--plates", runs / "plates", "--output", tmp_path) == 2
    assert "monkey-net-0: no checkpoint of a run" in capsys.readouterr().err


def test_an_ellipse_is_two_standard_deviations_along_the_axes_of_the_covariance():
    angle = math.radians(30)
    along = torch.tensor([math.cos(angle), math.sin(angle)])
    across = torch.tensor([-math.sin(angle), math.cos(angle)])
    covariance = 0.09 * torch.outer(along, along) + 0.01 * torch.outer(across, across)
    keypoints = Keypoints(torch.tensor([[[0.2, -0.4]]]), None, covariance[None, None])
    _, axis = plt.subplots()
    draw_ellipses(axis, keypoints, 0)
    for ellipse in axis.patches:
        assert ellipse.get_center() == pytest.approx((0.2, -0.4))
        assert ellipse.get_width() == pytest.approx(1.2, abs=1e-5)  # 4 times a deviation of .3
        assert ellipse.get_height() == pytest.approx(0.4, abs=1e-5)
        assert ellipse.get_angle() % 180 == pytest.approx(30, abs=1e-3)
    plt.close()


def test_heatmaps_in_colours():
    """Two narrow heatmaps in the corners: red, and cyan, the second of two colours."""
    points = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]])
    narrow = Keypoints(points, None, 1e-4 * torch.eye(2).expand(1, 2, 2, 2))
    picture = colored_heatmaps(narrow, (5, 5))
    assert_close(picture[0, :, 0, 0], torch.tensor([1.0, 0.15, 0.15]))
    assert_close(picture[0, :, 4, 4], torch.tensor([0.15, 1.0, 1.0]))
    assert picture[0, :, 2, 2].max() < 1e-6
    # On one spot: their mean colour.
    both = narrow._replace(value=torch.zeros(1, 2, 2))
    assert_close(colored_heatmaps(both, (5, 5))[0, :, 2, 2], torch.full((3,), 0.575))


def test_keypoints_of_a_plate():
    keypoints = Keypoints(torch.arange(30.0).view(1, 15, 2), None)
    assert_close(plate_keypoints(keypoints, 2).value, torch.arange(10.0, 20.0).view(1, 5, 2))


class TestStepsOfACut:
    """A field that stands still on the left and doubles the source's pixels on the right."""

    def maps(self):
        grid = coordinate_grid(8, 8, torch.zeros(1))
        field = grid[None].clone()
        field[..., 4:, 0] = grid[:, 4:, 0] / 2  # far from its place in the last columns
        return MotionMaps(field, None, None)

    def test_by_the_field(self):
        images = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        found = steps(*images, self.maps())
        _, _, occlusion, weight, background, visible, cut_mask, mixed = found
        assert_close(occlusion[0, 0, :, 6:], torch.full((8, 2), 0.5))
        assert_close(weight[0, 0, :, :4], torch.ones(8, 4))
        assert weight[0, 0, :, 6:].max() < 0.5
        assert_close(visible, background + (1 - background) * occlusion)
        num_foreground = int((1 - background).sum())
        assert (1 - cut_mask).sum() == math.ceil(FRACTION * num_foreground)
        assert (background * (1 - cut_mask)).sum() == 0
        assert_close(mixed, (1 - cut_mask).expand(1, 3, 8, 8))

    def test_by_maps_of_the_model(self):
        own = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        weights = torch.cat((own, 1 - own), dim=1)
        maps = self.maps()._replace(occlusion_map=own / 2, motion_weights=weights)
        found = steps(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), maps)
        assert_close(found[2], own / 2)
        assert_close(found[3], own)
