"""Video of a high dynamic range, HLG or PQ, for the standard range (ITU-R BT.709).

A pixel's light is that of a reference display with a peak of 1000 cd/m2 (BT.2100). The roll-off of
BT.2390 brings it to the 100 cd/m2 of a standard display: up to 28 cd/m2 it stays as it is, and
reference white, 203 cd/m2, comes out at 88, which is 242 of 255; highlights have the rest. Then
come the primaries of BT.709 and the inverse of a display's gamma (BT.1886).
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
STEPS = 65535  # of the tables
BAND = 64  # rows that are computed at once, which bounds the memory

# BT.2100, table 4: the perceptual quantizer
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100, table 5: hybrid log-gamma
HLG_A = 0.17883277
HLG_B = 1 - 4 * HLG_A
HLG_C = 0.5 - HLG_A * np.log(4 * HLG_A)
HLG_GAMMA = 1.2  # of a display with a peak of 1000 cd/m2
LUMA_2020 = (0.2627, 0.6780, 0.0593)

WHITE = (0.3127, 0.3290)  # D65
PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {  # chromaticities x, y of red, green, blue
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}


def hdr_kind(frame: VideoFrame) -> str | None:
    """`HLG` or `PQ`; None for a frame of the standard range."""
    kinds: dict[int, str] = {ColorTrc.ARIB_STD_B67: "HLG", ColorTrc.SMPTE2084: "PQ"}
    return kinds.get(frame.color_trc)


def pq_to_light(signal: Array) -> Array:
    """cd/m2 of a PQ signal in [0, 1] (BT.2100, table 4: EOTF)."""
    power = np.power(signal, 1 / PQ_M2)
    return 10000 * np.power(np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power), 1 / PQ_M1)


def light_to_pq(light: Array) -> Array:
    """The PQ signal in [0, 1] of cd/m2 (BT.2100, table 4: inverse EOTF)."""
    power = np.power(np.maximum(light, 0) / 10000, PQ_M1)
    return np.power((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power), PQ_M2)


def hlg_to_scene(signal: Array) -> Array:
    """Light of the scene in [0, 1] of an HLG signal in [0, 1] (BT.2100, table 5: inverse OETF)."""
    low = signal**2 / 3
    high = (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12
    return np.where(signal <= 0.5, low, high)


def roll_off(light: Array) -> Array:
    """cd/m2 on a standard display of cd/m2 up to `HDR_PEAK` (BT.2390, 5.4.1: EETF; black is 0)."""
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
    """3 x 3, for columns of linear R, G, B; the identity for primaries that are not known.

    What states none is taken for BT.2020, the primaries of BT.2100.
    """
    if primaries == ColorPrimaries.UNSPECIFIED:
        primaries = ColorPrimaries.BT2020
    if primaries not in PRIMARIES:
        return np.eye(3)
    return np.linalg.inv(_to_xyz(PRIMARIES[ColorPrimaries.BT709])) @ _to_xyz(PRIMARIES[primaries])


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> Array:
    """SMPTE RP 177: such that R = G = B = 1 is the white of D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*chromaticities, WHITE)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def tone_map(signal: NDArray[np.uint16], kind: str, primaries: int) -> Frame:
    """uint8 H x W x 3 of the standard range from R'G'B' of 16 bits, H x W x 3."""
    result = np.empty(signal.shape, np.uint8)
    matrix = to_bt709(primaries).T.astype(np.float32)
    for top in range(0, len(signal), BAND):
        light = _light_table(kind).take(signal[top : top + BAND])
        if kind == "HLG":  # BT.2100, table 5: OOTF
            luma = light @ np.array(LUMA_2020, np.float32)
            light *= np.power(luma, np.float32(HLG_GAMMA - 1))[..., None]
        # By the largest of the three, so that none is clipped and the hue stays.
        largest = np.minimum(light.max(axis=-1), 1)
        light *= _gain_table().take(_index(largest))[..., None]
        result[top : top + BAND] = _code_table().take(_index((light @ matrix).clip(0, 1)))
    return result


def _index(light: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Place in a table: tables are even in the root of the light, as the eye is, about."""
    return (np.sqrt(light) * STEPS + np.float32(0.5)).astype(np.uint16)


@cache
def _light_table(kind: str) -> NDArray[np.float32]:
    """HLG: of the scene; PQ: of the display. Both in [0, 1]."""
    signal = np.linspace(0, 1, STEPS + 1)
    light = hlg_to_scene(signal) if kind == "HLG" else pq_to_light(signal) / HDR_PEAK
    return light.astype(np.float32)


@cache
def _gain_table() -> NDArray[np.float32]:
    """What brings the light of the display, in units of HDR_PEAK, to that in units of SDR_PEAK."""
    light = np.linspace(0, 1, STEPS + 1)[1:] ** 2 * HDR_PEAK
    gain = roll_off(light) / SDR_PEAK / (light / HDR_PEAK)
    return np.concatenate([gain[:1], gain]).astype(np.float32)


@cache
def _code_table() -> NDArray[np.uint8]:
    light = np.linspace(0, 1, STEPS + 1) ** 2
    return np.rint(255 * light ** (1 / SDR_GAMMA)).astype(np.uint8)
