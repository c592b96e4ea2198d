"""Interface of a branch: what the training step, the checkpoint and the logger use of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from branches.outputs import StepOutputs
from common.batch_random import BatchRandom
from configs.value_types import ReluLayer
from losses import (
    LossTerm,
    Perceptual,
    PyramidFeatures,
    pixel_loss,
    used_layers,
    weigh,
)

Output = TypeVar("Output")


def is_smallest(name: str) -> bool:
    """Whether a scalar is logged as the smallest over parts of a batch, steps and processes, and
    not as the mean: `smallest_...`, after the name of its branch.
    """
    return name.rpartition("/")[2].startswith("smallest_")


class StepContext(NamedTuple):
    """The epoch and the random numbers of one step.

    epoch: epochs passed so far, with the fraction of the current one; for what grows with time.
    random: everything that is drawn at random in this step, on the device.
    host_random: one number from [0, 1) for the step, for choices that the host has to know.
    waiting: sections of the config whose part of the model has not started to learn.
    """

    epoch: float
    random: BatchRandom
    host_random: float
    waiting: frozenset[str] = frozenset()


class StepInputs(NamedTuple):
    """Inputs of every branch in a step, computed once.

    source, driving: B x 3 x H x W in [0, 1], after the colour jitter that they share; driving is
        the target.
    recolored_driving: driving with a jitter of its own, for what must not learn its colours.
    target_features: of `driving`, without gradient.
    context: the epoch and the random numbers of this step.
    outputs: of the branches before this one, for what builds on them.
    """

    source: Tensor
    driving: Tensor
    recolored_driving: Tensor
    perceptual: Perceptual
    target_features: PyramidFeatures
    context: StepContext
    outputs: StepOutputs = StepOutputs()

    def with_output(self, branch_name: str, output: Any) -> "StepInputs":
        """The same with the output of one more branch."""
        return self._replace(outputs=self.outputs._replace(**{branch_name: output}))


class Branch(ABC, nn.Module, Generic[Output]):
    """Child modules are the branch's networks: their attribute names name them in checkpoints."""

    @abstractmethod
    def forward(self, inputs: StepInputs) -> Output:
        """Everything the losses and pictures need."""

    @abstractmethod
    def loss_terms(self, inputs: StepInputs, output: Output) -> dict[str, LossTerm]:
        """The terms to minimize, by name; a term with weight 0 is left out."""

    @abstractmethod
    def statistics(self, output: Output) -> dict[str, Tensor]:
        """Scalars, on the device, that show early whether training goes wrong; see `is_smallest`
        for how they are logged.
        """

    @abstractmethod
    def pictures(self, inputs: StepInputs, output: Output) -> dict[str, Tensor]:
        """Columns of the picture grid by title: each B x 3 x H x W in [0, 1]."""


class ReconstructionLosses(Protocol):
    """Weights of what compares a prediction with its target."""

    @property
    def perceptual(self) -> Mapping[ReluLayer, float]: ...

    @property
    def pixel(self) -> float: ...


def reconstruction_terms(
    predictions: Mapping[str, Tensor],
    target: Tensor,
    target_features: PyramidFeatures,
    perceptual: Perceptual,
    weights: ReconstructionLosses,
) -> dict[str, LossTerm]:
    """`perceptual` and `pixel` terms, where they have a weight, of each prediction, B x 3 x H x W;
    its name in `predictions` is put before the term's.
    """
    terms: dict[str, LossTerm] = {}
    for prefix, prediction in predictions.items():
        if used_layers(weights.perceptual):
            terms[f"{prefix}perceptual"] = perceptual.loss(
                prediction, target_features, weights.perceptual
            )
        if weights.pixel:
            terms[f"{prefix}pixel"] = weigh(pixel_loss(prediction, target), weights.pixel)
    return terms
