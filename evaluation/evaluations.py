"""Reads evaluations that reconstruct.py wrote, and says whether they are of the same frames."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, NotRequired

import numpy as np
from pydantic import Field, Strict, StrictStr, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from common.errors import UserError, first_problem
from common.json_files import read_json
from common.safe_paths import MAX_TEXT
from evaluation.frechet_results import FrechetResults, read_frechet
from evaluation.metric_names import BASELINE, Tool
from evaluation.report import FRAMES_FILE, SUMMARY_FILE, MeasuredClip, read_frames
from metrics.detectors.detector import Description

_SAME_TRUTH = 1e-4  # largest difference of baseline_l1 between two devices on the same frames
_NUM_NAMED = 3  # names in an error message
_Size = Annotated[int, Strict(), Field(ge=1)]
_Text = Annotated[StrictStr, Field(max_length=MAX_TEXT)]  # it is printed


class _About(TypedDict):
    """What is needed of metrics.json."""

    checkpoint: _Text
    step: Annotated[int, Strict(), Field(ge=0)]
    age: _Text
    animator: _Text
    precision: NotRequired[_Text]  # older evaluations have none
    image_size: tuple[_Size, _Size]  # height, width
    measured_with: dict[str, Description]
    metrics: dict[StrictStr, Any]


_ABOUT: Final = TypeAdapter(_About)


class Evaluation(NamedTuple):
    """Results that reconstruct.py wrote to `folder`.

    about: content of metrics.json.
    metrics: names of all metrics that were measured.
    clips: content of frames.csv, by clip name.
    tools: what the metrics were measured with, by the names of `metric_names.Tool`.
    frechet: FID and FVD, where they were measured.
    """

    folder: Path
    about: dict[str, Any]
    metrics: frozenset[str]
    clips: dict[str, MeasuredClip]
    tools: dict[str, Description]
    frechet: FrechetResults

    def has(self, name: str) -> bool:
        """Whether the metric, or the distance FID or FVD, of this name was measured."""
        return name in self.metrics or name in self.frechet


def read_evaluation(folder: Path) -> Evaluation:
    """Read the evaluation in `folder`; UserError if there is none or it is incomplete."""
    try:
        about = read_json(folder / SUMMARY_FILE)
        metrics = frozenset(about["metrics"])
        _require_keys(folder, about)
        tools = _ABOUT.validate_python(about)["measured_with"]
        frechet = read_frechet(about)
        clips = {clip.name: clip for clip in read_frames(folder)}
    except UserError:
        raise
    except ValidationError as error:
        raise UserError(
            f"{folder / SUMMARY_FILE}: {first_problem(error)}; evaluate once more"
        ) from error
    except csv.Error as error:
        raise UserError(f"{folder / FRAMES_FILE}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder}: no metrics.json and frames.csv of an evaluation in it; give a "
            "folder that reconstruct.py wrote"
        ) from error
    if not clips:
        raise UserError(f"{folder}: {FRAMES_FILE} has no frame in it; evaluate once more")
    for clip in clips.values():
        lost = sorted((metrics | {f"{BASELINE}l1"}) - clip.metrics.keys())
        if lost:
            raise UserError(
                f"{folder}: {FRAMES_FILE} lacks {', '.join(lost[:_NUM_NAMED])}; evaluate once more"
            )
    return Evaluation(folder, about, metrics, clips, tools, frechet)


def _require_keys(folder: Path, about: Mapping[str, Any]) -> None:
    missing = [name for name in _About.__annotations__ if name not in (*about, "precision")]
    if missing:
        raise UserError(f"{folder}: {SUMMARY_FILE} lacks {', '.join(missing)}; evaluate once more")


def different_tools(tool: Tool | None, runs: Mapping[str, Evaluation]) -> dict[str, str]:
    """What each of `runs`, by label, used as `tool`, in words; empty if all used the same.

    A run that does not say what it used counts as one that used something else than the others.
    """
    tools = {label: run.tools.get(tool or "") for label, run in runs.items()}
    if len(set(tools.values())) < 2:
        return {}
    networks = {label: _network(found) for label, found in tools.items()}
    if len(set(networks.values())) < 2:  # one network, used in different ways
        return {label: found.convention for label, found in tools.items() if found}
    return networks


def _network(found: Description | None) -> str:
    return "an unknown tool" if found is None else f"{found.name} ({found.weights})"


def check_same_frames(a: Evaluation, b: Evaluation) -> None:
    """Make sure that two evaluations are of the same frames: they have the same baselines.

    Raises:
        UserError: clips, frames or image sizes differ.
    """
    for one, other in ((a, b), (b, a)):
        further = [name for name in one.clips if name not in other.clips]
        if further:
            more = f" and {len(further) - _NUM_NAMED} more" if len(further) > _NUM_NAMED else ""
            raise UserError(
                f"{one.folder} has clips that {other.folder} lacks: "
                f"{', '.join(further[:_NUM_NAMED])}{more}; evaluate both on the same clips"
            )
    if a.about["image_size"] != b.about["image_size"]:
        sizes = [" x ".join(map(str, reversed(run.about["image_size"]))) for run in (a, b)]
        raise UserError(
            f"{a.folder} is of {sizes[0]} pixels, {b.folder} of {sizes[1]}; metrics of "
            "other sizes do not compare"
        )
    for name, clip in a.clips.items():
        other_clip = b.clips[name]
        repeated, other_repeated = (found.metrics[f"{BASELINE}l1"] for found in (clip, other_clip))
        if clip.num_frames != other_clip.num_frames or not np.allclose(
            repeated, other_repeated, rtol=0, atol=_SAME_TRUTH
        ):
            raise UserError(
                f"the clip {name} has other frames in {a.folder} than in {b.folder}; "
                "evaluate both on the same data"
            )
