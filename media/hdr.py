"""Tone-maps video of high dynamic range, HLG or PQ, to the standard range (ITU-R BT.709).

The light of a pixel is computed for a reference display with a peak of 1000 cd/m2 (BT.2100). The
roll-off of BT.2390 maps it to the 100 cd/m2 of a standard display: light of up to 28 cd/m2 does not
change, reference white of 203 cd/m2 becomes 88 cd/m2, which is 242 of 255, and highlights share the
rest. Then the primaries are converted to BT.709, and the inverse of a display's gamma (BT.1886) is
applied.
"""

from functools import cache

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

from media.frames import Frame

Array = NDArray[np.float64]

HDR_PEAK = 1000.0  # cd/m2
SDR_PEAK = 100.0  # cd/m2
SDR_GAMMA = 2.4  # BT.1886
STEPS = 65535  # intervals of the lookup tables
BAND = 64  # rows that are computed at a time, to limit memory

# BT.2100, table 4: the perceptual quantizer
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100, table 5: hybrid log-gamma
HLG_A = 0.17883277
HLG_B = 1 - 4 * HLG_A
HLG_C = 0.5 - HLG_A * np.log(4 * HLG_A)
HLG_GAMMA = 1.2  # system gamma of a display with a peak of 1000 cd/m2
LUMA_2020 = (0.2627, 0.6780, 0.0593)

WHITE = (0.3127, 0.3290)  # D65
PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {  # chromaticities x, y of red, green, blue
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}


def hdr_kind(frame: VideoFrame) -> str | None:
    """Return `HLG` or `PQ`; None for a frame of the standard range."""
    kinds: dict[int, str] = {ColorTrc.ARIB_STD_B67: "HLG", ColorTrc.SMPTE2084: "PQ"}
    return kinds.get(frame.color_trc)


def pq_to_light(signal: Array) -> Array:
    """Convert a PQ signal in [0, 1] to light in cd/m2 (BT.2100, table 4: EOTF)."""
    power = np.power(signal, 1 / PQ_M2)
    return 10000 * np.power(np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power), 1 / PQ_M1)


def light_to_pq(light: Array) -> Array:
    """Convert light in cd/m2 to a PQ signal in [0, 1] (BT.2100, table 4: inverse EOTF)."""
    power = np.power(np.maximum(light, 0) / 10000, PQ_M1)
    return np.power((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power), PQ_M2)


def hlg_to_scene(signal: Array) -> Array:
    """Convert an HLG signal to the light of the scene, both in [0, 1].

    It is the inverse OETF of BT.2100, table 5.
    """
    low = signal**2 / 3
    high = (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12
    return np.where(signal <= 0.5, low, high)


def roll_off(light: Array) -> Array:
    """Map light of up to HDR_PEAK cd/m2 to light of up to SDR_PEAK cd/m2.

    It is the EETF of BT.2390, 5.4.1, with a black level of 0.
    """
    peak = light_to_pq(np.asarray(HDR_PEAK))
    signal = np.minimum(light_to_pq(light) / peak, 1)
    target = light_to_pq(np.asarray(SDR_PEAK)) / peak
    knee = 1.5 * target - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )
    return pq_to_light(np.where(signal < knee, signal, spline) * peak)


def to_bt709(primaries: int) -> Array:
    """Return the 3 x 3 matrix that converts columns of linear R, G, B to the primaries of BT.709.

    Unspecified primaries are taken to be those of BT.2020, as in BT.2100. For primaries that are
    not in PRIMARIES it is the identity.
    """
    if primaries == ColorPrimaries.UNSPECIFIED:
        primaries = ColorPrimaries.BT2020
    if primaries not in PRIMARIES:
        return np.eye(3)
    return np.linalg.inv(_to_xyz(PRIMARIES[ColorPrimaries.BT709])) @ _to_xyz(PRIMARIES[primaries])


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> Array:
    """Return the matrix from linear R, G, B to XYZ in which R = G = B = 1 is D65 (SMPTE RP 177)."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*chromaticities, WHITE)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def tone_map(signal: NDArray[np.uint16], kind: str, primaries: int) -> Frame:
    """Convert R'G'B' of 16 bits, H x W x 3, to uint8 H x W x 3 of the standard range.

    kind: `HLG` or `PQ`. primaries: a value of `ColorPrimaries`.
    """
    result = np.empty(signal.shape, np.uint8)
    matrix = to_bt709(primaries).T.astype(np.float32)
    for top in range(0, len(signal), BAND):
        light = _light_table(kind).take(signal[top : top + BAND])
        if kind == "HLG":  # BT.2100, table 5: OOTF
            luma = light @ np.array(LUMA_2020, np.float32)
            light *= np.power(luma, np.float32(HLG_GAMMA - 1))[..., None]
        # One gain for all channels, from the largest, so that none is clipped and the hue stays.
        largest = np.minimum(light.max(axis=-1), 1)
        light *= _gain_table().take(_index(largest))[..., None]
        result[top : top + BAND] = _code_table().take(_index((light @ matrix).clip(0, 1)))
    return result


def _index(light: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Index of a light in a table. The steps of a table are even in the root of the light.

    That is about how the eye sees differences.
    """
    return (np.sqrt(light) * STEPS + np.float32(0.5)).astype(np.uint16)


@cache
def _light_table(kind: str) -> NDArray[np.float32]:
    """Table from a signal to light in [0, 1]: of the scene for HLG, of the display for PQ."""
    signal = np.linspace(0, 1, STEPS + 1)
    light = hlg_to_scene(signal) if kind == "HLG" else pq_to_light(signal) / HDR_PEAK
    return light.astype(np.float32)


@cache
def _gain_table() -> NDArray[np.float32]:
    """Table of the factor from light in units of HDR_PEAK to tone-mapped light over SDR_PEAK."""
    light = np.linspace(0, 1, STEPS + 1)[1:] ** 2 * HDR_PEAK
    gain = roll_off(light) / SDR_PEAK / (light / HDR_PEAK)
    return np.concatenate([gain[:1], gain]).astype(np.float32)


@cache
def _code_table() -> NDArray[np.uint8]:
    """Table from light in units of SDR_PEAK to the 8-bit value of a standard display."""
    light = np.linspace(0, 1, STEPS + 1) ** 2
    return np.rint(255 * light ** (1 / SDR_GAMMA)).astype(np.uint8)
