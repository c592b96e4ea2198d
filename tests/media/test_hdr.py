"""Compares the formulas with numbers of the standards, and tests clips of high dynamic range."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from media.hdr import hlg_to_scene, light_to_pq, pq_to_light, roll_off, to_bt709, tone_map
from media.video import open_clip
from tests.helpers.shared import SHARED

BT2020_NCL = 9  # H.264's number of the matrix


@pytest.mark.parametrize(
    ("signal", "light"),  # from BT.2408, table 1, and BT.2100
    [(0, 0), (0.5081, 100), (0.5807, 203), (0.7518, 1000), (0.9026, 4000), (1, 10000)],
)
def test_perceptual_quantizer(signal, light):
    assert pq_to_light(np.array(float(signal))) == pytest.approx(light, rel=2e-3)
    assert light_to_pq(np.array(float(light))) == pytest.approx(signal, abs=2e-4)


@pytest.mark.parametrize(
    ("signal", "scene"),
    [(0, 0), (0.25, 1 / 48), (0.5, 1 / 12), (0.75, 0.26496), (1, 1)],  # from BT.2100, table 5
)
def test_hybrid_log_gamma(signal, scene):
    assert hlg_to_scene(np.array(float(signal))) == pytest.approx(scene, abs=1e-5)


def test_reference_white_of_hlg():
    """A signal of 75 % is 203 cd/m2 on a display of 1000 cd/m2 (BT.2408, table 1)."""
    scene = hlg_to_scene(np.array(0.75))
    assert 1000 * scene**1.2 == pytest.approx(203, abs=0.5)


def test_roll_off():
    """Light below the knee does not change; above it is reduced, without a step, up to the peak."""
    knee = pq_to_light(1.5 * light_to_pq(np.array(100.0)) - 0.5 * light_to_pq(np.array(1000.0)))
    light = np.linspace(0.01, 1000, 100_000)
    rolled = roll_off(light)
    np.testing.assert_allclose(rolled[light < knee], light[light < knee], rtol=1e-9)
    slopes = np.diff(rolled) / np.diff(light)
    assert slopes.min() >= 0
    assert slopes[np.searchsorted(light, knee)] == pytest.approx(1, abs=0.01)
    assert rolled[-1] == pytest.approx(100)
    assert roll_off(np.array(203.0)) == pytest.approx(88.24, abs=0.01)


def test_primaries():
    """The matrix is that of BT.2087, table 2, and white stays white."""
    expected = [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ]
    matrix = to_bt709(ColorPrimaries.BT2020)
    np.testing.assert_allclose(matrix, expected, atol=5e-5)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(to_bt709(ColorPrimaries.BT709), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "signal", "code"),
    [
        ("HLG", 0, 0),
        ("HLG", 0.75, 242),  # 203 cd/m2 become 88.24 of 100
        ("HLG", 1, 255),
        ("PQ", 0.5807, 242),
        ("PQ", 0.7518, 255),
        ("PQ", 1, 255),  # brighter than the peak
        # 10 cd/m2, below the knee: 255 * (10 / 100)^(1 / 2.4)
        ("PQ", 0.30055, 98),
        ("HLG", np.sqrt(3 * 0.01 ** (1 / 1.2)), 98),
    ],
)
def test_greys(kind, signal, code):
    deep = np.full((3, 2, 3), round(signal * 65535), np.uint16)
    mapped = tone_map(deep, kind, ColorPrimaries.BT2020)
    assert abs(mapped.astype(int) - code).max() <= 1


def test_colours_stay_in_proportion():
    """HLG: a dark and a bright colour are compared with the formulas in float64."""
    deep = np.array([[[20000, 14000, 9000], [60000, 41000, 30000]]], np.uint16)
    scene = hlg_to_scene(deep / 65535)
    light = scene * (scene @ [0.2627, 0.6780, 0.0593])[..., None] ** 0.2 * 1000
    largest = light.max(axis=-1, keepdims=True)
    standard = light * roll_off(largest) / largest @ to_bt709(ColorPrimaries.BT2020).T / 100
    expected = 255 * standard.clip(0, 1) ** (1 / 2.4)
    mapped = tone_map(deep, "HLG", ColorPrimaries.BT2020)
    np.testing.assert_allclose(mapped, expected, atol=1)


def write_deep(path, signals, transfer):
    """Write a clip of 10 bits with grey frames, at these parts of the signal's range."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, {"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p10le"
        context = stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, BT2020_NCL
        context.color_trc, context.color_primaries = transfer, ColorPrimaries.BT2020
        for number, signal in enumerate(signals):
            planes = np.full((48, 48), 512, np.uint16)
            planes[:32] = round(64 + 876 * signal)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
            picture.color_range, picture.colorspace = ColorRange.MPEG, BT2020_NCL
            picture.color_trc, picture.color_primaries = transfer, ColorPrimaries.BT2020
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("transfer", "white", "kind"),
    [(ColorTrc.ARIB_STD_B67, 0.75, "HLG"), (ColorTrc.SMPTE2084, 0.5807, "PQ")],
)
def test_clips_are_tone_mapped_and_say_so_once(tmp_path, caplog, transfer, white, kind):
    path = write_deep(tmp_path / "a.mp4", [0, white, 1], transfer)
    reader = open_clip(path)
    frames = np.stack(list(reader))
    for frame, code in zip(frames, (0, 242, 255), strict=True):
        assert abs(frame.astype(int) - code).max() <= 1
    np.testing.assert_array_equal(reader.read([2, 0]), frames[[2, 0]])
    assert [*reader.remarks] == [
        f"{kind}, a high dynamic range; tone-mapped to the standard one (BT.709)"
    ]
    assert caplog.messages == []


def test_ten_bits_alone_are_no_high_dynamic_range(tmp_path, caplog):
    path = write_deep(tmp_path / "a.mp4", [0, 0.75, 1], ColorTrc.BT2020_10)
    assert [round(frame.mean()) for frame in open_clip(path)] == [0, 191, 255]
    assert caplog.messages == []


def test_a_file_that_failed():
    path = SHARED / "inputs" / "hdr_hlg.mp4"
    if not path.exists():
        pytest.skip("no such file here")
    frame = open_clip(path).read([1])[0]
    colours, counts = np.unique(frame.reshape(-1, 3), axis=0, return_counts=True)
    assert abs(colours[counts.argmax()].astype(int) - 242).max() <= 2  # the white of the page
