"""What every section of a config shares, and when a part of the model starts to learn."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from configs.value_types import NumBlocks, Scale, Weight, Width


class Section(BaseModel):
    """One mapping of the YAML file: unknown keys are errors, and text is not read as a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class HourglassConfig(Section):
    width: Width
    max_width: Width = 1024
    num_blocks: NumBlocks = 5
    scale: Scale = 0.25  # size of the network's input, as a part of the image's
    learning_rate: Weight | None = None  # default: train.learning_rate


class Start(NamedTuple):
    """When a part of the model starts to learn.

    It starts after `epoch` epochs or, if `share` is given, after that share of the planned steps.
    section: the dotted key of the part.
    """

    section: str
    epoch: int
    share: float | None

    def __str__(self) -> str:
        """Return the setting as messages show it."""
        if self.share is None:
            return f"{self.section}.start_epoch: {self.epoch}"
        return f"{self.section}.start_share: {self.share:g}"

    def has_learned(self, step: int, epoch: int, batch: int, planned_steps: int | None) -> bool:
        """Whether any of the first `step` steps has trained the part.

        Args:
            epoch, batch: position of the next step.
            planned_steps: the number of steps planned for the run; None before there is a plan.
        """
        if self.share is None:
            return (epoch, batch) > (self.epoch, 0)
        return planned_steps is not None and step > self.first_step(planned_steps)

    def first_step(self, planned_steps: int) -> int:
        """Number of steps before the part starts to learn; only where `share` is given."""
        assert self.share is not None
        return round(self.share * planned_steps)
