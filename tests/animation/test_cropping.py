"""Automatic crops in pictures of a bright square on a dark ground, the figure of these tests. The
networks learn it within seconds.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from animation.cropping import (
    FACE_DROP,
    FACE_MARGIN,
    Cropper,
    FramedFigure,
    crop_around,
    installed_face_detector,
    interpolate_boxes,
    moved_inside,
)
from branches.model import Model
from media.crops import Box, cut_out
from media.images import fit_frames
from media.video import open_clip
from metrics.detectors.detector import Description
from tests.helpers.factories import tiny_config

CONFIG = tiny_config("data.image_size=64", "background.threshold=0.5")
SIZE = CONFIG.data.size
CPU = torch.device("cpu")


def picture(left, top, side, size=(96, 160)):
    """A dark picture with a bright square."""
    frame = np.random.default_rng(0).integers(20, 60, (*size, 3), np.uint8)
    frame[top : top + side, left : left + side] += 170
    return frame


class Brightest:
    """A face detector that finds the bright square if it is at least `smallest` pixels wide."""

    description = Description("brightness", "", "", "")

    def __init__(self, smallest=1):
        self.smallest = smallest

    def face_box(self, frame):
        y, x = np.nonzero(frame.min(axis=2) > 128)
        if not len(x) or np.ptp(x) + 1 < self.smallest:
            return None
        return Box(x[0], y[0], np.ptp(x) + 1, np.ptp(y) + 1)


def overlap(a, b):
    """Intersection over union of two boxes."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    common = max(0, width) * max(0, height)
    return common / (a.width * a.height + b.width * b.height - common)


def middle(box):
    return np.array([box.left + box.width / 2, box.top + box.height / 2])


@pytest.fixture(scope="module")
def model():
    """A model trained so that its mask is the bright square and its keypoints are the corners of a
    square 0.4 times as large.

    The learning rate ends at 0, so that the result depends little on a processor's rounding.
    """
    model = Model(CONFIG)
    generator = model.masks.mask_generator
    detector = model.motion.keypoint_detector
    optimizer = torch.optim.Adam([*generator.parameters(), *detector.parameters()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=200)
    rng = np.random.default_rng(0)
    corners = torch.tensor([[-0.2, -0.2], [0.2, -0.2], [-0.2, 0.2], [0.2, 0.2]])
    for _ in range(200):
        squares = [(*rng.integers(4, 61 - side, 2), side) for side in rng.integers(14, 50, 4)]
        frames = torch.tensor(np.stack([picture(*square, SIZE) for square in squares]))
        frames = frames.movedim(-1, 1) / 255
        masks = F.avg_pool2d((frames.amin(1, keepdim=True) > 0.5).float(), 2)[..., 3:-3, 3:-3]
        places = torch.tensor(np.array(squares), dtype=torch.float32)
        points = places[:, None, :2] + places[:, None, 2:] * (0.5 + corners)
        loss = F.binary_cross_entropy_with_logits(generator.logits(frames), masks)
        loss = loss + 4 * F.l1_loss(detector(frames).value, 2 * points / 64 - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def without(model, *branches):
    """`model` with fewer branches."""
    fewer = Model(tiny_config("data.image_size=64", *(f"{name}=null" for name in branches)))
    state = fewer.state_dict()
    fewer.load_state_dict({name: model.state_dict()[name] for name in state})
    return fewer.eval()


# Boxes


def test_moved_inside():
    size = (100, 200)
    assert moved_inside(Box(-5, 30, 50, 50), size) == Box(0, 30, 50, 50)
    assert moved_inside(Box(180, 70, 50, 50), size) == Box(150, 50, 50, 50)
    assert moved_inside(Box(10, 10, 50, 50), size) == Box(10, 10, 50, 50)
    # A box higher than the picture contains it.
    assert moved_inside(Box(10, 10, 150, 150), size) == Box(10, 0, 150, 150)
    assert moved_inside(Box(10, -80, 150, 150), size) == Box(10, -50, 150, 150)


def test_crop_around():
    size = (100, 200)
    around = Box(70, 20, 40, 40)  # twice the side of the figure, around its middle
    assert crop_around(Box(80, 30, 20, 20), 2, size, (64, 64)) == around
    assert crop_around(Box(85, 30, 10, 20), 2, size, (64, 64)) == around
    assert crop_around(Box(80, 30, 20, 20), 2, size, (64, 128)) == Box(50, 20, 80, 40)
    # The margin is limited by the picture; near a corner the crop is moved.
    assert crop_around(Box(80, 20, 60, 60), 2, size, (64, 64)) == Box(60, 0, 100, 100)
    assert crop_around(Box(0, 0, 20, 20), 2, size, (64, 64)) == Box(0, 0, 40, 40)
    # A figure too wide for any crop within the picture is not cut, but has no margin.
    assert crop_around(Box(20, 40, 160, 50), 2, size, (64, 64)) == Box(20, -15, 160, 160)


# Interpolation over time


def sighted(boxes):
    return [FramedFigure(position, Box(*box)) for position, box in boxes.items()]


def even(num_frames, rate=25):
    """Times of evenly spaced frames, in seconds."""
    return [number / rate for number in range(num_frames)]


def test_the_crop_of_a_still_figure_is_still():
    boxes = interpolate_boxes(
        sighted(dict.fromkeys((0, 5, 10), (30, 20, 40, 40))), even(14), 25, (100, 200)
    )
    assert len(boxes) == 14
    assert_allclose(boxes, [(30, 20, 40, 40)] * 14, atol=1e-9)


def test_one_known_box_is_enough():
    assert_allclose(
        interpolate_boxes(sighted({1: (30, 20, 40, 40)}), even(3), 25, (100, 200)),
        [(30, 20, 40, 40)] * 3,
    )


def test_no_lag_behind_even_motion_and_growth():
    figures = [FramedFigure(t, Box(10 + 2 * t, 200, 100 + t, 100 + t)) for t in range(0, 296, 5)]
    boxes = interpolate_boxes(figures, even(296), 25, (2000, 2000))
    for t in range(50, 246):  # at the ends the filter sees only one side
        assert_allclose(middle(boxes[t]), (60 + 2.5 * t, 250 + 0.5 * t), atol=1e-6)
        assert boxes[t].width == pytest.approx(100 + t, abs=20)
    assert boxes[148].width == pytest.approx(248, abs=0.2)


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [
        ([0, 1e-12, 2e-12, 3e-12, 4e-12], 1e12),  # a trillion frames a second
        ([0, 1e-5, 2e-5, 3e-5, 1e9], 1e5),  # a gap of 30 years
        ([0, 1e-5, 2e-5, 3e-5, 1e9], 25),
        ([0, 0, 0, 0, 0], 1e12),  # as in numbers of 64 bits
    ],
)
def test_times_that_nothing_can_have(seconds, rate):
    """The Gaussian over 2 seconds would have had as many weights as there are frames in 16."""
    boxes = interpolate_boxes(sighted({1: (30, 20, 40, 40)}), seconds, rate, (100, 200))
    assert_allclose(boxes, [(30, 20, 40, 40)] * 5)


def test_proportions_are_kept():
    boxes = interpolate_boxes(
        sighted({0: (0, 0, 30, 20), 9: (50, 50, 60, 40)}), even(10), 25, (200, 200)
    )
    assert_allclose([box.width / box.height for box in boxes], 1.5)


def test_a_gap_is_bridged_in_a_straight_line():
    seen = dict.fromkeys((0, 5, 10), (0, 50, 40, 40))
    seen |= dict.fromkeys((110, 115, 120), (100, 50, 40, 40))
    boxes = interpolate_boxes(sighted(seen), even(121), 25, (200, 400))
    assert boxes[60].left == pytest.approx(50, abs=0.1)
    assert boxes[35].left == pytest.approx(25, abs=0.2)


def test_a_single_wrong_box_does_not_count():
    seen = dict.fromkeys(range(0, 100, 5), (30, 20, 40, 40)) | {50: (300, 200, 90, 90)}
    assert_allclose(
        interpolate_boxes(sighted(seen), even(100), 25, (400, 400)), [(30, 20, 40, 40)] * 100
    )


def test_unevenly_spaced_frames():
    """The crop follows the times of the frames: even motion stays even where frames are missing."""
    seconds = [*np.arange(0, 4, 0.04), *np.arange(4, 8, 0.4), *np.arange(8, 12, 0.04)]
    places = {n: (20 * seconds[n], 100, 40, 40) for n in range(0, len(seconds), 2)}
    boxes = interpolate_boxes(sighted(places), seconds, len(seconds) / 12, (300, 500))
    found = np.array([box.left for box in boxes])
    middle_part = (np.array(seconds) > 3) & (np.array(seconds) < 9)
    assert_allclose(found[middle_part], 20 * np.array(seconds)[middle_part], atol=1)


def test_a_jump_is_smoothed():
    """The figure jumps by 100 pixels and doubles its size: the size changes more slowly."""
    seen = {n: (50, 50, 40, 40) if n < 100 else (130, 30, 80, 80) for n in range(0, 200, 5)}
    boxes = np.array(interpolate_boxes(sighted(seen), even(200), 25, (300, 300)))
    middles, widths = boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 2]
    steps, growth = np.diff(middles), np.diff(widths)
    assert (steps > -1e-9).all()
    # The steps are largest at the peak of a Gaussian of 0.5 s, and of 2 s, at 25 frames a second.
    assert steps.max() == pytest.approx(100 / (12.5 * np.sqrt(2 * np.pi)), rel=0.05)
    assert growth.max() == pytest.approx(40 / (50 * np.sqrt(2 * np.pi)), rel=0.05)
    assert middles[97] == pytest.approx(120, abs=3)  # half of the way at the jump: no lag
    assert (middles[0], middles[-1]) == pytest.approx((70, 170), abs=0.1)


def test_crops_stay_in_the_picture():
    """A figure suddenly becomes small in a corner: its position changes faster than its size."""
    seen = {t: (10, 10, 80, 80) if t < 50 else (0, 0, 20, 20) for t in range(0, 100, 5)}
    boxes = np.array(interpolate_boxes(sighted(seen), even(100), 25, (100, 100)))
    assert boxes[:, :2].min() == 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 100


# Finding the figure


@pytest.mark.parametrize(("left", "top", "side"), [(70, 30, 30), (0, 66, 30), (120, 5, 40)])
def test_face(model, left, top, side):
    """The crop is 1.9 faces wide, and its middle is 0.12 faces above the middle of the face."""
    found = Cropper(model, SIZE, CPU, Brightest()).figure_box(picture(left, top, side))
    assert found.how == "cropped around a face (brightness) to " + found.how.split()[-1]
    assert found.box.width == found.box.height == pytest.approx(FACE_MARGIN * side)
    if (left, top) == (70, 30):
        assert_allclose(middle(found.box), (85, 45 - FACE_DROP * side))
    else:
        assert moved_inside(found.box, (96, 160)) == found.box


def test_a_small_face_is_ignored(model):
    """A crop must have at least a quarter of the shorter side, 24 pixels: 1.9 * 12 is too small."""
    cropper = Cropper(model, SIZE, CPU, Brightest())
    assert "face" not in cropper.figure_box(picture(70, 30, 12)).how
    assert "face" in cropper.figure_box(picture(70, 30, 13)).how


@pytest.mark.parametrize(("left", "top", "side"), [(15, 40, 24), (110, 10, 32), (60, 20, 44)])
@pytest.mark.parametrize("size", [(96, 160), (160, 96)])
def test_mask(model, left, top, side, size):
    """The crop is the bright square with a margin, even if it is small in the picture."""
    left, top = (left, top) if size == (96, 160) else (top, left)
    found = Cropper(model, SIZE, CPU, None).figure_box(picture(left, top, side, size))
    assert found.how.startswith("cropped around the model's mask to ")
    margin = side / 8
    expected = Box(left - margin, top - margin, 1.25 * side, 1.25 * side)
    assert overlap(found.box, moved_inside(expected, size)) > 0.75


def test_later_passes_of_the_mask_are_more_exact(model):
    """The square has 10 pixels in the first pass; its edges are found to a fraction of a pixel."""
    cropper = Cropper(model, SIZE, CPU, None)
    overlaps = [
        overlap(
            cropper.figure_box(picture(left, top, 40, (200, 260))).box,
            Box(left - 5, top - 5, 50, 50),
        )
        for left, top in ((40, 40), (100, 60), (110, 80))
    ]
    assert np.mean(overlaps) > 0.88


def test_keypoints(model):
    """The crop is 2.5 times the extent of the keypoints, for a model without masks."""
    cropper = Cropper(without(model, "masks", "background"), SIZE, CPU, None)
    for left, top in ((40, 30), (60, 40), (80, 25)):
        found = cropper.figure_box(picture(left, top, 40))
        assert found.how.startswith("cropped around the model's keypoints to ")
        assert_allclose(middle(found.box), (left + 20, top + 20), atol=12)
        assert 32 < found.box.width < 48  # 2.5 times 0.4 times 40


def test_without_a_figure_the_centre_is_cut_out(model):
    cropper = Cropper(without(model, "motion", "discriminator"), SIZE, CPU, Brightest())
    frame = picture(0, 0, 0)
    found = cropper.figure_box(frame)
    assert found.how == "no figure found, cropped at the centre to 32,0,96,96"
    cut = cut_out(frame, found.box, SIZE)
    assert (cut == fit_frames(frame[None], SIZE, "crop")[0]).all()
    boxes, how = cropper.clip_boxes(iter([frame] * 7), Fraction(25))
    assert (boxes, how) == ([found.box] * 7, found.how)


def test_clip(model):
    """Boxes follow the figure in each frame of an iterator; every fifth frame is searched."""

    class Counting(Brightest):
        searched = 0

        def face_box(self, frame):
            self.searched += 1
            return super().face_box(frame)

    detector = Counting()
    cropper = Cropper(model, SIZE, CPU, detector)
    frames = (picture(10 + t, 30, 30) for t in range(101))
    boxes, how = cropper.clip_boxes(frames, Fraction(25))
    assert how == "cropped around a face (brightness), seen in 21 of the 21 frames searched"
    assert detector.searched == 21
    assert len(boxes) == 101
    for t in range(40, 70):
        assert middle(boxes[t])[0] == pytest.approx(25 + t, abs=0.5)


def test_the_finder_that_succeeds_most_often_counts(model):
    """The face is found in only 3 of 11 frames; its boxes would be far larger."""
    frames = [picture(60, 30, 30 if t < 15 else 24) for t in range(51)]
    cropper = Cropper(model, SIZE, CPU, Brightest(smallest=30))
    boxes, how = cropper.clip_boxes(frames, Fraction(25))
    assert how == "cropped around the model's mask, seen in 8 of the 11 frames searched"
    widths = [box.width for box in boxes]
    assert max(widths) < 40
    assert len(boxes) == 51


@pytest.mark.parametrize("rate", [Fraction(1), Fraction(30000, 1001), Fraction(240)])
def test_any_frame_rate(model, rate):
    boxes, _ = Cropper(model, SIZE, CPU, Brightest()).clip_boxes([picture(60, 30, 30)] * 3, rate)
    assert len(boxes) == 3


# With dlib


@pytest.fixture(scope="module")
def dlib():
    pytest.importorskip("dlib")
    detector = installed_face_detector()
    if detector is None:
        pytest.skip("dlib's models are not installed")
    return detector


def test_crops_of_heads_match_those_of_the_training_data(dlib, model, shared_data):
    """Each training picture is put into a large grey one; the crop should find it again."""
    cropper = Cropper(model, (256, 256), CPU, dlib)
    overlaps = []
    for path in sorted((shared_data / "heads" / "train").glob("*.mp4")):
        large = np.full((720, 1280, 3), 120, np.uint8)
        large[300:556, 700:956] = open_clip(path).read([10])[0]
        box, how = cropper.figure_box(large)
        assert "a face (dlib)" in how
        overlaps.append(overlap(box, Box(700, 300, 256, 256)))
    assert np.mean(overlaps) > 0.65
    assert min(overlaps) > 0.4


def test_the_head_of_a_portrait_clip_is_followed(dlib, model, shared_data):
    clip = open_clip(shared_data / "clips" / "portrait_720x1280_30fps.mp4")
    cropper = Cropper(model, (256, 256), CPU, dlib)
    boxes, _ = cropper.clip_boxes(clip.read(range(13)), clip.frame_rate)
    assert len(boxes) == 13
    head = Box(130, 200, 450, 650)  # by eye, from hair to chin
    for box in boxes:
        assert box.left <= head.left
        assert box.top <= head.top
        assert box.left + box.width >= head.left + head.width
        assert box.top + box.height >= head.top + head.height
        assert box.width >= 600
