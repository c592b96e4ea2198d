"""FID and FVD as an evaluation reports them, in `frechet` of metrics.json."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter

from metrics.frechet import FrechetMetric


class FrechetResult(NamedTuple):
    """One distance, and what it was measured with.

    model, baseline: distance of the predictions, and of the source repeated; None for fewer than
        two samples.
    extractor, sha256: the network as the option names it, and the hash of its file.
    clip_length: frames of a sample; 1 for FID.
    num_frames: frames in all samples; the last ones of a clip, which fill no sample, are left out.
    num_samples, num_features: number of samples, and of numbers in the feature of each.
    """

    model: float | None
    baseline: float | None
    extractor: str
    sha256: str
    clip_length: int
    num_frames: int
    num_samples: int
    num_features: int

    @property
    def samples(self) -> str:
        """What the samples are, with their number: `48 frames`, `3 clips of 16 frames`."""
        if self.clip_length == 1:
            return f"{self.num_samples} frames"
        return f"{self.num_samples} clips of {self.clip_length} frames"

    @property
    def note(self) -> str | None:
        """What to know about the number of samples; None if there are more than features."""
        if self.model is None:
            return f"not defined: {self.samples}, and a distance needs two"
        if self.num_samples > self.num_features:
            return None
        return (
            f"only {self.samples} for {self.num_features} features: the covariances are singular "
            "and the distance is too high; compare it only with others of the same frames"
        )


FrechetResults = Mapping[FrechetMetric, FrechetResult]

_ADAPTER: Final = TypeAdapter(dict[FrechetMetric, FrechetResult])


def as_json(results: FrechetResults) -> dict[str, Any]:
    """The entry `frechet` of metrics.json."""
    return {metric: result._asdict() for metric, result in results.items()}


def read_frechet(about: Mapping[str, Any]) -> FrechetResults:
    """The results in the content of a metrics.json; empty for one of earlier versions.

    Raises:
        ValueError: they are damaged.
    """
    return _ADAPTER.validate_python(about.get("frechet", {}))


def notes(results: FrechetResults) -> list[str]:
    """A line for each distance that has a note."""
    return [f"{metric}: {result.note}" for metric, result in results.items() if result.note]
