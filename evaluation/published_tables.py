"""Published numbers to show beside one's own, for metrics that are measured in the same way.

They are from the tables of PriorityCut (2021): full trainings on 256 x 256 videos, measured on the
published test videos. AKD, MKR, AED and the salient metrics are left out: they depend on the
networks that find keypoints, identities and salient regions, and ours are different ones.
"""

from typing import Literal, NamedTuple

from common.errors import UserError
from evaluation.metric_names import METRICS
from evaluation.report import Summaries, number

Dataset = Literal["vox", "taichi"]
IMAGE_SIZE = (256, 256)
LEFT_OUT = (
    "published AKD, MKR, AED and salient metrics are not shown: they come from other detectors"
)


class PublishedTable(NamedTuple):
    """A table of a paper.

    rows: by method, the values of `metrics` as they are printed there.
    """

    title: str
    metrics: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]


TABLES: dict[Dataset, PublishedTable] = {
    "vox": PublishedTable(
        "VoxCeleb, published test videos",
        ("l1", "psnr", "ssim"),
        {
            "X2Face": ("0.0739", "19.13", "0.625"),
            "Monkey-Net": ("0.0477", "22.47", "0.730"),
            "FOMM": ("0.0413", "24.28", "0.791"),
            "FOMM+": ("0.0409", "24.26", "0.790"),
            "PriorityCut": ("0.0401", "24.45", "0.793"),
        },
    ),
    "taichi": PublishedTable(
        "Tai-Chi-HD, published test videos",
        ("l1", "psnr", "ssim"),
        {
            "X2Face": ("0.0729", "18.16", "0.580"),
            "Monkey-Net": ("0.0691", "18.89", "0.599"),
            "FOMM": ("0.0569", "21.29", "0.651"),
            "FOMM+": ("0.0555", "21.35", "0.654"),
            "PriorityCut": ("0.0549", "21.54", "0.653"),
        },
    ),
}


def published_table(dataset: Dataset, image_size: tuple[int, int]) -> PublishedTable:
    """The table for `dataset`; UserError for other image sizes, whose numbers do not compare."""
    if image_size != IMAGE_SIZE:
        height, width = image_size
        raise UserError(
            f"--published {dataset}: measured on 256 x 256 pixels, this model makes {width} x "
            f"{height}; leave the option out"
        )
    return TABLES[dataset]


def own_numbers(table: PublishedTable, summaries: Summaries) -> list[str]:
    """The model's means over frames for the metrics of `table`."""
    return [
        number(summaries[name].over_frames.mean, METRICS[name].digits) for name in table.metrics
    ]


def console_text(table: PublishedTable, summaries: Summaries) -> str:
    """The table for the console, with the model's own numbers in the last row."""
    rows = {**table.rows, "this model": own_numbers(table, summaries)}
    lines = [
        f"{method:14}" + "".join(f"{cell:>10}" for cell in row) for method, row in rows.items()
    ]
    heads = " " * 14 + "".join(f"{name:>10}" for name in table.metrics)
    return "\n".join([f"{table.title}:", heads, *lines, LEFT_OUT])
