"""Names of the metrics, and how to read them."""

from typing import Literal, NamedTuple

from metrics.frechet import FrechetMetric

# What a metric depends on besides the frames: a detector of keypoints and identity, the finder of
# salient regions, the LPIPS network, or the extractor of FID or FVD.
Tool = Literal["detector", "salient", "lpips", "fid", "fvd"]

BASELINE = "baseline_"  # prefix of the metric for repeating the source


class Metric(NamedTuple):
    """Explains a metric to readers of the tables.

    meaning: explanation in a few words.
    better: whether lower or higher numbers are better.
    digits: number of decimals to show.
    tool: the tool that the metric depends on, if any. Numbers of different tools cannot be
        compared.
    """

    meaning: str
    better: Literal["lower", "higher"]
    digits: int
    tool: Tool | None = None


_PIXELS = {
    "l1": Metric("mean absolute difference", "lower", 4),
    "psnr": Metric("peak signal-to-noise ratio, dB", "higher", 2),
    "ssim": Metric("structural similarity", "higher", 4),
}
_REGIONS = {
    "salient": "everything else black",
    "non_salient": "the salient region black",
    "salient_pixels": "over the salient pixels",
    "non_salient_pixels": "over the other pixels",
}

# In the order of the tables.
METRICS = {
    **_PIXELS,
    "figure_l1": Metric("L1 where the true figure is, in source or driving frame", "lower", 4),
    "temporal": Metric("mean |change of prediction - change of truth|", "lower", 4),
    "lpips": Metric("distance of trained features", "lower", 4, "lpips"),
    "akd": Metric("keypoint distance, mean |dx|, |dy|, pixels", "lower", 3, "detector"),
    "akd_euclidean": Metric("keypoint distance, Euclidean, pixels", "lower", 3, "detector"),
    "mkr": Metric("share of the true keypoints missed", "lower", 4, "detector"),
    "aed": Metric("identity, Euclidean distance", "lower", 4, "detector"),
    "aed_squared": Metric("identity, squared distance", "lower", 4, "detector"),
    "csim": Metric("identity, cosine similarity", "higher", 4, "detector"),
    **{
        f"{name}_{region}": metric._replace(meaning=f"{name.upper()}, {meaning}", tool="salient")
        for region, meaning in _REGIONS.items()
        for name, metric in _PIXELS.items()
    },
}

# Distances between sets of samples, which have no number for a frame; in the order of the tables.
FRECHET: dict[FrechetMetric, Metric] = {
    "fid": Metric("Fréchet distance of the features of frames", "lower", 2, "fid"),
    "fvd": Metric("Fréchet distance of the features of clips", "lower", 2, "fvd"),
}

ALL_METRICS: dict[str, Metric] = METRICS | {str(name): metric for name, metric in FRECHET.items()}
