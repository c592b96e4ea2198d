"""Measures of a clip: by hand, in parts, and their baselines."""

import numpy as np
import pytest
import torch

from datasets.puppets.clips import Puppets
from evaluation.measures import (
    ClipContext,
    DetectorMeasure,
    FigureMeasure,
    Measure,
    PixelMeasure,
    SalientMeasure,
    TemporalMeasure,
    salient_metrics,
)
from metrics.detectors.detector import Description
from tests.helpers.factories import MemoryClips

NOWHERE = Description("none", "none", "none", "none")
CLIPS = MemoryClips(["a"])


def flat(*values):
    """Frames of 16 x 16 pixels; every pixel of frame i has the i-th value."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def measured(measure: Measure, source, prediction, target, sizes=(99,)):
    """The metrics of a clip that is measured in parts of `sizes[0]` frames."""
    score = measure.start(ClipContext(CLIPS, 0, range(len(target)), source))
    parts = [
        score(*pair)
        for pair in zip(prediction.split(sizes[0]), target.split(sizes[0]), strict=True)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_pixels_of_a_known_error():
    found = measured(PixelMeasure(), flat(0.5), flat(0.6, 0.5), flat(0.5, 0.7))
    assert found["l1"].tolist() == pytest.approx([0.1, 0.2])
    assert found["psnr"].tolist() == pytest.approx([20.0, 13.9794], rel=1e-4)
    assert found["baseline_l1"].tolist() == pytest.approx([0.0, 0.2])
    assert found["baseline_psnr"].tolist() == pytest.approx([100.0, 13.9794], rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 99])
def test_temporal(size):
    """The truth changes by 0.1 and 0.2, the prediction by 0.1 and -0.1, the source never."""
    found = measured(
        TemporalMeasure(), flat(0.3), flat(0.5, 0.6, 0.5), flat(0.1, 0.2, 0.4), (size,)
    )
    assert found["temporal"].tolist() == pytest.approx([torch.nan, 0.0, 0.3], abs=1e-6, nan_ok=True)
    expected = pytest.approx([torch.nan, 0.1, 0.2], abs=1e-6, nan_ok=True)
    assert found["baseline_temporal"].tolist() == expected


def test_figure_in_parts():
    """Each part is measured with the figure's masks of its own frames."""
    puppets = Puppets("test", num_clips=1, num_frames=5, image_size=(32, 32), seed=0)
    frames = torch.from_numpy(puppets.read(0, range(5))).movedim(-1, 1) / 255
    start = ClipContext(puppets, 0, range(5), frames[:1])
    whole, parts = FigureMeasure().start(start), FigureMeasure().start(start)
    prediction = torch.rand(frames.shape)
    expected = whole(prediction, frames)["figure_l1"]
    found = [parts(prediction[i : i + 2], frames[i : i + 2])["figure_l1"] for i in (0, 2, 4)]
    assert torch.equal(torch.cat(found), expected)


class TestSalient:
    """The error is 0.2 in the left half, which is salient, and 0.1 in the rest."""

    target = flat(0.5)
    region = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    region[..., :8] = True
    prediction = torch.where(region, 0.7, 0.6).expand(-1, 3, -1, -1)

    def test_over_the_whole_frame_and_over_the_region(self):
        found = {
            name: values.item()
            for name, values in salient_metrics(self.prediction, self.target, self.region).items()
        }
        assert len(found) == 12
        assert found["l1_salient"] == pytest.approx(0.2 / 2)  # over the whole frame
        assert found["l1_non_salient"] == pytest.approx(0.1 / 2)
        assert found["psnr_salient"] == pytest.approx(-10 * np.log10(0.04 / 2), rel=1e-4)
        assert found["psnr_non_salient"] == pytest.approx(-10 * np.log10(0.01 / 2), rel=1e-4)
        assert found["l1_salient_pixels"] == pytest.approx(0.2)
        assert found["l1_non_salient_pixels"] == pytest.approx(0.1)
        assert found["psnr_salient_pixels"] == pytest.approx(13.9794, rel=1e-4)
        assert found["psnr_non_salient_pixels"] == pytest.approx(20.0, rel=1e-4)
        assert found["ssim_salient"] > found["ssim_salient_pixels"]  # the black parts are equal

    @pytest.mark.parametrize(("fill", "empty"), [(False, "salient"), (True, "non_salient")])
    def test_metrics_of_an_empty_region_are_nan(self, fill, empty):
        """An empty region must not count as a perfect 100 dB."""
        region = torch.full_like(self.region, fill)
        found = salient_metrics(self.prediction, self.target, region)
        undefined = {name for name, values in found.items() if values.isnan().all()}
        kinds = (empty, f"{empty}_pixels")
        assert undefined == {f"{name}_{kind}" for name in ("l1", "psnr", "ssim") for kind in kinds}

    def test_the_region_is_that_of_the_real_frame(self):
        class Bright:
            description = NOWHERE

            def start(self, name, source):
                return lambda driving: driving.mean(dim=1, keepdim=True) > 0.5

        found = measured(SalientMeasure(Bright()), flat(0.9), flat(0.2, 0.9), flat(0.6, 0.3))
        assert found["l1_salient"].tolist() == pytest.approx([0.4, torch.nan], nan_ok=True)
        assert found["l1_non_salient"].tolist() == pytest.approx([torch.nan, 0.6], nan_ok=True)
        assert found["baseline_l1_salient"].tolist() == pytest.approx([0.3, torch.nan], nan_ok=True)


class Corner:
    """A detector of two keypoints, (255 * grey, 0) and (0, 255 * grey), and an embedding of both
    numbers; it finds nothing in black frames.
    """

    description = NOWHERE

    def __init__(self):
        self.looked_at = 0

    def landmarks(self, frame):
        self.looked_at += 1
        grey = float(frame[0, 0, 0]) or np.nan
        return np.array([[grey, 0 * grey], [0 * grey, grey]])

    def embedding(self, frame):
        grey = float(frame[0, 0, 0]) or np.nan
        return np.array([grey, grey])


class TestDetectorMeasure:
    def test_by_hand(self):
        """Predictions of grey 10, 20 and 0 (nothing found) for 13, 24 and 30; the source is 10."""
        detector = Corner()
        found = measured(
            DetectorMeasure(detector),
            flat(10 / 255),
            flat(10 / 255, 20 / 255, 0.0),
            flat(13 / 255, 24 / 255, 30 / 255),
            sizes=(2,),
        )
        lost = torch.nan
        expected = {
            "akd": [1.5, 2.0, lost],  # half of the coordinates differ
            "akd_euclidean": [3.0, 4.0, lost],
            "mkr": [0.0, 0.0, 1.0],
            "aed": [3 * 2**0.5, 4 * 2**0.5, lost],
            "aed_squared": [18.0, 32.0, lost],
            "csim": [1.0, 1.0, lost],  # all embeddings have one direction
            "baseline_akd": [1.5, 7.0, 10.0],
            "baseline_mkr": [0.0, 0.0, 0.0],
            "baseline_aed": [3 * 2**0.5, 14 * 2**0.5, 20 * 2**0.5],
        }
        for name, values in expected.items():
            assert found[name].tolist() == pytest.approx(values, nan_ok=True), name
        assert detector.looked_at == 7  # 3 predictions, 3 targets and the source, each once

    def test_truth_without_a_face_is_left_out(self):
        found = measured(DetectorMeasure(Corner()), flat(0.5), flat(0.5), flat(0.0))
        for name in ("akd", "mkr", "aed", "csim", "baseline_akd", "baseline_mkr"):
            assert found[name].isnan().all()

    def test_a_detector_with_keypoints_only(self):
        class Points:
            description = NOWHERE
            landmarks = Corner.landmarks
            looked_at = 0

        found = measured(DetectorMeasure(Points()), flat(0.5), flat(0.5), flat(0.5))
        assert {name for name in found if "baseline" not in name} == {"akd", "akd_euclidean", "mkr"}
