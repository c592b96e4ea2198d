"""FID and FVD of an evaluation: samples, baselines and clips that are left out, by hand."""

import numpy as np
import pytest
import torch

from evaluation.frechet_measures import FrechetMeasure
from evaluation.frechet_results import FrechetResult, as_json, notes, read_frechet
from evaluation.measures import ClipContext
from metrics.extractors import build_extractor
from tests.helpers.factories import MemoryClips
from tests.helpers.script_files import FirstAndLast, MeanColours, write_script

CPU = torch.device("cpu")
CLIPS = MemoryClips(["a"])


def grey(*levels):
    """Frames of 4 x 4 pixels, each of one of the 256 `levels`."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 255


def measure_clips(measure, *clips, size=99):
    """Give `measure` clips of (source, predictions, targets), `size` frames at a time."""
    for source, prediction, target in clips:
        score = measure.start(ClipContext(CLIPS, 0, range(len(target)), source))
        for pair in zip(prediction.split(size), target.split(size), strict=True):
            assert score(*pair) == {}
        measure.add(measure.take_clip())
    return measure.result()


@pytest.fixture
def fid(tmp_path):
    path = write_script(tmp_path / "means.pt", MeanColours())
    return FrechetMeasure("fid", build_extractor(str(path), "fid", CPU), str(path), 1)


@pytest.fixture
def fvd(tmp_path):
    """Clips of two frames; the feature is red in each of them."""
    path = write_script(tmp_path / "ends.pt", FirstAndLast())
    return FrechetMeasure("fvd", build_extractor(str(path), "fvd", CPU), str(path), 2)


@pytest.mark.parametrize("size", [1, 2, 99])
def test_fid_by_hand(fid, size):
    """All three features are the level, so the distance is three times that of one.

    Predictions 10, 30 | 50 have mean 30 and variance 400; targets 20, 60 | 100 have 60 and 1600;
    the sources 20, 20 | 100 have 46.667 and 2133.33. The covariances commute.
    """
    result = measure_clips(
        fid,
        (grey(20), grey(10, 30), grey(20, 60)),
        (grey(100), grey(50), grey(100)),
        size=size,
    )
    assert result.model == pytest.approx(3 * (30**2 + (40 - 20) ** 2))
    repeated = np.array([20, 20, 100])
    expected = (60 - repeated.mean()) ** 2 + (40 - repeated.std(ddof=1)) ** 2
    assert result.baseline == pytest.approx(3 * expected)
    assert (result.num_frames, result.num_samples, result.num_features) == (3, 3, 3)
    assert result.clip_length == 1


@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_fvd_by_hand(fvd, size):
    """Targets (10, 20), (30, 40) | (50, 60), each 1 darker in the predictions; the fifth frame of
    the first clip fills no sample. Only the means differ: by 1 in both features.

    Repeating the sources gives (10, 10), (10, 10) | (50, 50), whose features are equal: mean
    70 / 3, variance 533.33, against means 30 and 40 and variances 400.
    """
    targets = grey(10, 20, 30, 40, 99), grey(50, 60)
    first, second = (((t * 255 - 1) / 255) for t in targets)
    result = measure_clips(
        fvd, (grey(10), first, targets[0]), (grey(50), second, targets[1]), size=size
    )
    assert result.model == pytest.approx(2, rel=1e-6)
    mean, variance = 70 / 3, np.var([10, 10, 50], ddof=1)
    expected = (30 - mean) ** 2 + (40 - mean) ** 2 + 2 * (variance**0.5 - 20) ** 2
    assert result.baseline == pytest.approx(expected)
    assert (result.num_frames, result.num_samples, result.clip_length) == (6, 3, 2)


def test_equal_frames_have_no_distance(fid):
    frames = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    result = measure_clips(fid, (frames[:1], frames, frames))
    assert result.model == pytest.approx(0, abs=1e-9)
    assert result.baseline > 1
    assert result.note is None  # 9 frames for 3 features


def test_frames_are_those_of_the_picture_files(fid):
    """A level of 10.4 is 10, and what is not in range is cut, as `--save-frames` does."""
    result = measure_clips(fid, (grey(0), grey(10.4, -9.0, 300.0), grey(10, 0, 255)))
    assert result.model == pytest.approx(0, abs=1e-9)


def test_a_clip_that_failed_is_in_neither_set(fid):
    clip = (grey(20), grey(10, 30), grey(20, 60))
    measure_clips(fid, clip)
    score = fid.start(ClipContext(CLIPS, 0, range(2), grey(0)))
    score(grey(0, 255), grey(9, 99))  # not kept
    again = measure_clips(fid, clip)
    assert again.num_samples == 4
    assert again.model == pytest.approx(3 * (20**2 + (40 - 20) ** 2 / 3), rel=1e-6)


def test_clips_shorter_than_a_sample(fvd):
    result = measure_clips(fvd, (grey(1), grey(1), grey(1)), (grey(1), grey(1, 2), grey(1, 2)))
    assert (result.model, result.baseline, result.num_samples) == (None, None, 1)
    assert result.note == "not defined: 1 clips of 2 frames, and a distance needs two"


def test_fewer_samples_than_features(fid):
    result = measure_clips(fid, (grey(20), grey(10, 30), grey(20, 60)))
    assert notes({"fid": result}) == [
        "fid: only 2 frames for 3 features: the covariances are singular and the distance is too "
        "high; compare it only with others of the same frames"
    ]


def test_description_names_samples_and_network(fid, fvd):
    assert fid.description.convention.startswith("every frame; images from 0 to 255")
    text = "clips of 2 consecutive frames without overlap; images from 0 to 255"
    assert fvd.description.convention.startswith(text)
    assert fid.origin.startswith("fid: ")
    assert fid.description.weights in fid.origin


RESULT = FrechetResult(1.5, None, "i3d.pt", "ab" * 32, 16, 32, 2, 400)


def test_results_are_read_as_they_were_written():
    assert read_frechet({"frechet": as_json({"fvd": RESULT})}) == {"fvd": RESULT}
    assert read_frechet({}) == {}  # of an earlier version


@pytest.mark.parametrize(
    "damaged",
    [
        {"fvd": as_json({"fvd": RESULT})["fvd"] | {"model": "high"}},
        {"fvd": {"model": 1.0}},
        {"other": as_json({"fvd": RESULT})["fvd"]},
        [1],
        None,
    ],
)
def test_damaged_results(damaged):
    with pytest.raises(ValueError, match="validation error"):
        read_frechet({"frechet": damaged})
