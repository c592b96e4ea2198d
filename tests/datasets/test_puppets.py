import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from datasets.puppets.background import paint_background, sample_background
from datasets.puppets.canvas import Canvas, Place
from datasets.puppets.clips import Puppets, render
from datasets.puppets.colour import oklch
from datasets.puppets.figure import draw_figure, find_joints
from datasets.puppets.identity import Fabric, sample_identity
from datasets.puppets.pose import Pose
from datasets.puppets.shapes import Cap, Ellipse, Limb, Shape, Smile, Trapezoid

SIZE = (64, 64)


def puppets(split="train", num_clips=24, num_frames=32, image_size=SIZE, seed=3):
    return Puppets(split, num_clips, num_frames, image_size, seed)


def centroid(foreground_mask):
    """Return the centroid of a mask, (x, y) in pixels."""
    rows, columns = np.indices(foreground_mask.shape)
    total = foreground_mask.sum()
    return np.array([(foreground_mask * columns).sum(), (foreground_mask * rows).sum()]) / total


def standing(**changes):
    pose = Pose(0.6, 0.3, 0.6, 0.3, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0)
    return pose._replace(**changes)


def test_motion_scale_stretches_the_dance_about_its_middle():
    plain = puppets()
    one, two = (Puppets("train", 24, 32, SIZE, 3, motion_scale=scale) for scale in (1.0, 2.0))
    for index in range(4):
        assert np.array_equal(one.read(index, [0, 9]), plain.read(index, [0, 9]))
        assert not np.array_equal(two.read(index, [0, 9]), plain.read(index, [0, 9]))
        assert two.identity(index) == plain.identity(index)
        poses, wide = (
            np.array([clips.pose(index, frame) for frame in range(400)]) for clips in (one, two)
        )
        middle = (poses.max(axis=0) + poses.min(axis=0)) / 2
        assert np.allclose((wide.max(axis=0) + wide.min(axis=0)) / 2, middle, atol=0.2)
        ratio = np.ptp(wide, axis=0) / np.ptp(poses, axis=0)
        kept = np.isin(Pose._fields, ("head_turn", "scale", "y"))
        assert np.allclose(ratio[kept], 1)
        assert np.allclose(ratio[~kept], 2)


class TestClips:
    def test_shapes_types_and_names(self):
        source = puppets(num_clips=3, num_frames=7, image_size=(32, 48))
        assert len(source.clips) == 3
        assert len({clip.name for clip in source.clips}) == 3
        assert (source.num_frames(0), source.frame_rate(0)) == (7, Fraction(25))
        assert source.image_size == (32, 48)
        frames, foreground_masks = source.read(1, [0, 6]), source.foreground_masks(1, [0, 6])
        assert (frames.shape, frames.dtype) == ((2, 32, 48, 3), np.uint8)
        assert (foreground_masks.shape, foreground_masks.dtype) == ((2, 32, 48), np.float32)
        assert foreground_masks.min() == 0
        assert foreground_masks.max() == 1

    def test_frames_come_in_the_order_asked_for_and_may_repeat(self):
        source = puppets()
        straight = source.read(0, [1, 9, 20])
        assert not np.array_equal(straight[0], straight[1])
        np.testing.assert_array_equal(source.read(0, [20, 1, 20, 9]), straight[[2, 0, 2, 1]])

    def test_another_instance_and_an_unpickled_one_give_the_same_frames(self):
        first, other = puppets(), puppets()
        unpickled = pickle.loads(pickle.dumps(first))
        expected = first.read(5, [0, 17])
        np.testing.assert_array_equal(other.read(5, [0, 17]), expected)
        np.testing.assert_array_equal(unpickled.read(5, [0, 17]), expected)

    def test_a_clip_does_not_depend_on_the_number_of_clips_or_frames(self):
        few, many = puppets(num_clips=3, num_frames=10), puppets(num_clips=500, num_frames=90)
        np.testing.assert_array_equal(few.read(2, [4]), many.read(2, [4]))
        assert few.clips[2] == many.clips[2]

    def test_the_seed_changes_everything(self):
        one, other = puppets(seed=1), puppets(seed=2)
        assert one.identity(0) != other.identity(0)
        assert one.pose(0, 0) != other.pose(0, 0)
        assert one.background(0) != other.background(0)

    def test_splits_share_no_identity_pose_background_or_photograph(self):
        train, test = puppets("train", 300), puppets("test", 300)
        for truth in (Puppets.identity, Puppets.background, lambda s, i: s.pose(i, 0)):
            seen = {truth(train, i) for i in range(300)}
            assert len(seen) == 300
            assert seen.isdisjoint(truth(test, i) for i in range(300))
        photos = [{s.background(i).photo for i in range(300)} - {None} for s in (train, test)]
        assert min(len(names) for names in photos) >= 3
        assert photos[0].isdisjoint(photos[1])

    def test_another_split_is_refused(self):
        with pytest.raises(ValueError, match="validation"):
            puppets("validation")


class TestMotion:
    def test_neighbours_are_alike_and_distant_frames_are_not(self):
        source, rng = puppets(), np.random.default_rng(0)
        near, far = [], []
        for clip in range(24):
            first, last = sorted(rng.choice(31, 2, replace=False).tolist())
            wanted = [first, first + 1, last]
            frames = source.read(clip, wanted).astype(np.float32) / 255
            figure = source.foreground_masks(clip, wanted).max(0) > 0.5
            near.append(np.abs(frames[1] - frames[0])[figure].mean())
            far.append(np.abs(frames[2] - frames[0])[figure].mean())
        assert np.mean(far) > 0.12
        assert np.mean(near) < 0.5 * np.mean(far)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_the_figure_is_large_moves_and_stays_inside(self, split):
        source = puppets(split)
        travel, areas, border = [], [], []
        for clip in range(24):
            foreground_masks = source.foreground_masks(clip, range(0, 32, 4))
            travel.append(np.ptp([centroid(mask) for mask in foreground_masks], axis=0).max() / 64)
            areas.append(foreground_masks.mean())
            inside = foreground_masks[:, 1:-1, 1:-1].sum()
            border.append(1 - inside / foreground_masks.sum())
        assert 0.1 < np.mean(travel) < 0.25
        assert min(areas) > 0.18
        assert max(areas) < 0.36
        assert max(border) < 0.02

    def test_joints_turn_far(self):
        source = puppets()
        poses = np.array([[source.pose(clip, t) for t in range(32)] for clip in range(24)])
        swing = dict(zip(Pose._fields, np.ptp(poses, axis=1).mean(0), strict=True))
        assert swing["left_shoulder"] > 0.7
        assert swing["right_elbow"] > 0.7
        assert swing["left_hip"] > 0.3
        assert swing["rotation"] > 0.12
        assert swing["scale"] > 0.03

    def test_translation_moves_the_centroid_by_that_share_of_the_shorter_side(self):
        rng = np.random.default_rng(1)
        identity, background = sample_identity(rng), sample_background(rng, "train")
        still, moved = (
            centroid(render(identity, pose, background, (64, 96)).foreground_mask)
            for pose in (standing(), standing(x=0.1, y=-0.0625))
        )
        np.testing.assert_allclose(moved - still, [6.4, -4.0], atol=0.02)

    def test_a_quarter_turn_of_the_body_is_a_quarter_turn_of_the_mask(self):
        rng = np.random.default_rng(2)
        identity, background = sample_identity(rng), sample_background(rng, "train")
        upright, turned = (
            render(identity, pose, background, SIZE).foreground_mask
            for pose in (standing(), standing(rotation=math.pi / 2))
        )
        np.testing.assert_allclose(turned, np.rot90(upright, -1), atol=1e-3)

    def test_a_raised_arm_moves_only_its_side(self):
        rng = np.random.default_rng(4)
        identity, background = sample_identity(rng), sample_background(rng, "train")
        down, up = (
            render(identity, pose, background, SIZE).foreground_mask
            for pose in (standing(), standing(left_shoulder=2.2))
        )
        changed = np.flatnonzero(np.abs(up - down).max(0) > 0.01)
        assert len(changed) > 5
        assert changed.max() < 32


class TestRender:
    def test_the_figure_and_its_mask_do_not_depend_on_the_background(self):
        rng = np.random.default_rng(5)
        identity = sample_identity(rng)
        one, other = sample_background(rng, "train"), sample_background(rng, "test")
        first, second = (render(identity, standing(), b, SIZE) for b in (one, other))
        mask = first.foreground_mask
        np.testing.assert_array_equal(mask, second.foreground_mask)
        np.testing.assert_array_equal(first.frame[mask == 1], second.frame[mask == 1])
        behind = [paint_background(b, SIZE) for b in (one, other)]
        assert np.abs(behind[0] - behind[1]).mean() > 0.02
        np.testing.assert_array_equal(first.frame[mask == 0], behind[0][mask == 0])
        # At the edge, frame = figure + (1 - mask) * background, with the same figure on both.
        difference = (1 - mask)[..., None] * (behind[0] - behind[1])
        np.testing.assert_allclose(first.frame - second.frame, difference, atol=1e-6)

    @pytest.mark.parametrize("size", [(64, 64), (48, 96), (80, 64)])
    def test_frames_are_float32_in_range_at_any_size(self, size):
        source = puppets(image_size=size)
        for clip in range(12):
            frame, foreground_mask = source.render(clip, 0)
            assert (frame.shape, frame.dtype) == ((*size, 3), np.float32)
            assert (foreground_mask.shape, foreground_mask.dtype) == (size, np.float32)
            assert frame.min() >= 0
            assert frame.max() <= 1 + 1e-6

    def test_a_larger_picture_is_the_same_picture(self):
        small, large = puppets(), puppets(image_size=(256, 256))
        for clip in range(4):
            coarse, fine = small.render(clip, 8), large.render(clip, 8)
            blocks = fine.foreground_mask.reshape(64, 4, 64, 4).mean((1, 3))
            assert np.abs(blocks - coarse.foreground_mask).mean() < 0.004
            assert fine.foreground_mask.mean() == pytest.approx(
                coarse.foreground_mask.mean(), rel=0.02
            )
            shrunk = fine.frame.reshape(64, 4, 64, 4, 3).mean((1, 3))
            assert np.abs(shrunk - coarse.frame).mean() < 0.02

    def test_a_figure_out_of_sight_leaves_the_background(self):
        rng = np.random.default_rng(6)
        identity, background = sample_identity(rng), sample_background(rng, "train")
        frame, foreground_mask = render(identity, standing(x=3.0), background, SIZE)
        assert not foreground_mask.any()
        np.testing.assert_array_equal(frame, paint_background(background, SIZE))

    def test_the_background_picture_is_what_the_frames_show_beside_the_figure(self):
        source = puppets("test")
        picture = source.background_picture(3)
        assert (picture.shape, picture.dtype) == ((*SIZE, 3), np.float32)
        for frame, foreground_mask in (source.render(3, 0), source.render(3, 9)):
            np.testing.assert_array_equal(
                frame[foreground_mask == 0], picture[foreground_mask == 0]
            )


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "area"),
        [
            (Ellipse(0.3, 0.3), math.pi * 0.09),
            (Ellipse(0.4, 0.2), math.pi * 0.08),
            (Cap(Ellipse(0.4, 0.2), 0.0, 0.0), math.pi * 0.04),
            (Trapezoid(0.1, 0.3, 0.2, 0.0), 0.4 * 0.4),
            (Trapezoid(0.2, 0.2, 0.1, 0.1), 0.08 + 1.2 * 0.1 + math.pi * 0.01),
            (
                Limb((-0.2, -0.2), (-0.2, 0.1), (-0.2, 0.3), 0.1, 0.1, 0.1),
                0.5 * 0.2 + math.pi * 0.01,
            ),
            (Smile(0.3, math.pi / 2, 0.05), math.pi * 0.3 * 0.1 + math.pi * 0.05**2),
        ],
    )
    def test_coverage_adds_up_to_the_area(self, shape: Shape, area: float):
        canvas = Canvas((128, 128))
        fabric = Fabric((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
        canvas.paint(Place(64, 64, math.cos(0.7), math.sin(0.7), 100), shape, fabric)
        assert canvas.coverage.sum() / 100**2 == pytest.approx(area, rel=0.01)

    def test_a_mark_colours_the_figure_and_not_what_is_beside_it(self):
        canvas = Canvas((32, 32))
        place = Place(16, 16, 1.0, 0.0, 20)
        canvas.paint(place, Ellipse(0.3, 0.3), Fabric((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)))
        coverage = canvas.coverage.copy()
        canvas.draw(place, Ellipse(0.5, 0.5), (1.0, 0.5, 0.0))
        np.testing.assert_array_equal(canvas.coverage, coverage)
        expected = np.array([1.0, 0.5, 0.0], np.float32)[:, None, None] * coverage
        np.testing.assert_allclose(canvas.colour, expected, atol=1e-6)

    def test_oklch_of_white_grey_and_red(self):
        assert oklch(1.0, 0.0, 0.0) == pytest.approx((1, 1, 1), abs=1e-3)
        assert oklch(0.5999, 0.0, 0.3) == pytest.approx((0.5028,) * 3, abs=2e-3)
        assert oklch(0.62796, 0.25768, 29.234 / 360) == pytest.approx((1, 0, 0), abs=2e-3)


def test_joints_lie_on_the_figure_and_move_with_the_pose():
    """A joint lies inside of its part, so the figure covers its pixel, if that is in the frame."""
    clips = Puppets("test", 30, 8, (64, 64), 0, 1.0)
    inside = total = 0
    for index in range(30):
        identity, pose = clips.identity(index), clips.pose(index, 3)
        joints = find_joints(identity, pose, (64, 64))
        shifted = find_joints(identity, pose._replace(x=pose.x + 0.125), (64, 64))
        for name, (x, y) in joints.items():
            assert shifted[name] == pytest.approx((x + 8, y))
        coverage = draw_figure(identity, pose, (64, 64)).foreground_mask
        pixels = [(int(y), int(x)) for x, y in joints.values() if 0 <= x < 64 and 0 <= y < 64]
        inside += sum(coverage[pixel] > 0.5 for pixel in pixels)
        total += len(pixels)
    assert total > 300
    assert inside == total


def test_hands_are_where_the_hands_are_painted():
    """The right hand of the figure in front: painting it in another colour changes its pixel."""
    clips = Puppets("test", 20, 8, (64, 64), 0, 1.0)
    for index in range(20):
        identity, pose = clips.identity(index), clips.pose(index, 0)
        x, y = find_joints(identity, pose, (64, 64))["left hand"]
        if not (0 <= x < 64 and 0 <= y < 64):
            continue
        clothes = identity.clothes._replace(hands=(1.0, 0.0, 0.0))
        before = draw_figure(identity, pose, (64, 64)).colour
        after = draw_figure(identity._replace(clothes=clothes), pose, (64, 64)).colour
        change = np.abs(after - before).sum(axis=-1)
        changed = np.argwhere(change > 0.2)
        if len(changed):
            nearest = np.linalg.norm(changed[:, ::-1] + 0.5 - (x, y), axis=-1).min()
            assert nearest < 1.5
