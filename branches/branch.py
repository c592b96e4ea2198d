"""Interface of a branch, as the training step, the checkpoint and the logger use it."""

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
    """Whether the scalar `name` is logged as a minimum instead of a mean over parts of a batch,
    steps and processes. True for `smallest_...`, with or without the branch name in front.
    """
    return name.rpartition("/")[2].startswith("smallest_")


class StepContext(NamedTuple):
    """The epoch and the random numbers of one step.

    epoch: number of epochs so far, including the fraction of the current one; used by schedules.
    random: source of all random numbers of this step that are drawn on the device.
    host_random: one random number in [0, 1), for decisions that the host must know.
    waiting: config sections whose part of the model has not started to train yet.
    """

    epoch: float
    random: BatchRandom
    host_random: float
    waiting: frozenset[str] = frozenset()


class StepInputs(NamedTuple):
    """Inputs of every branch in a step, computed once.

    source, driving: B x 3 x H x W in [0, 1], after the same colour jitter; driving is the target.
    recolored_driving: driving after another colour jitter, for networks that must not learn its
        colours; only the mask branch has one. `driving` itself in a model without masks.
    perceptual: computes VGG features and compares them.
    target_features: VGG features of `driving`, without gradient.
    context: the epoch and the random numbers of this step.
    outputs: outputs of the branches that ran before this one.
    """

    source: Tensor
    driving: Tensor
    recolored_driving: Tensor
    perceptual: Perceptual
    target_features: PyramidFeatures
    context: StepContext
    outputs: StepOutputs = StepOutputs()

    def with_output(self, branch_name: str, output: Any) -> "StepInputs":
        """A copy of the inputs that also holds the output of the branch `branch_name`."""
        return self._replace(outputs=self.outputs._replace(**{branch_name: output}))


class Branch(ABC, nn.Module, Generic[Output]):
    """Base class of the branches.

    Its child modules are the branch's networks; their attribute names are their checkpoint keys.
    """

    @abstractmethod
    def forward(self, inputs: StepInputs) -> Output:
        """Compute everything that the losses, statistics and pictures of this step need."""

    @abstractmethod
    def loss_terms(self, inputs: StepInputs, output: Output) -> dict[str, LossTerm]:
        """Loss terms to minimize, by name; terms with weight 0 are left out."""

    @abstractmethod
    def statistics(self, output: Output) -> dict[str, Tensor]:
        """Scalars, on the device, that show early whether training goes wrong.

        They are logged as means, or as minima if `is_smallest` says so.
        """

    @abstractmethod
    def pictures(self, inputs: StepInputs, output: Output, num_rows: int) -> dict[str, Tensor]:
        """Columns of the logged picture grid, by title: each B x 3 x H x W in [0, 1].

        Only the first `num_rows` samples are shown, so it may leave out the others.
        """


class ReconstructionLosses(Protocol):
    """Weights of the terms that compare a prediction with its target."""

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
    """The `perceptual` and `pixel` terms of each prediction, if their weights are not 0.

    Args:
        predictions: B x 3 x H x W each; the keys become prefixes of the term names.
        target: B x 3 x H x W.
        target_features: VGG features of `target`.
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
