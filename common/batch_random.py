"""Draws the random numbers of a batch: a sample gets the same ones however the batch is split."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class BatchRandom(NamedTuple):
    """Draws the random numbers for one part of a batch.

    A batch is divided among processes, and within a process into micro-batches that fit into
    memory. Every part draws the numbers of the whole batch and keeps its own rows, so each sample
    gets the numbers that it would get in one undivided batch.

    generator: on the device of the batch, and in the same state for every part.
    part, num_parts: the number of this part, from 0, and how many parts of equal size there are.
    """

    generator: torch.Generator
    part: int = 0
    num_parts: int = 1

    def split(self, num_parts: int) -> list[Self]:
        """Divide this part into `num_parts` smaller ones of equal size."""
        if num_parts == 1:
            return [self]
        return [
            self._replace(
                generator=self.generator.clone_state(),
                part=self.part * num_parts + i,
                num_parts=self.num_parts * num_parts,
            )
            for i in range(num_parts)
        ]

    def uniform(self, num_samples: int, *shape: int) -> Tensor:
        """Draw uniformly from [0, 1): B x *shape, for the B = `num_samples` of this part."""
        size = (num_samples * self.num_parts, *shape)
        return self._own_rows(torch.rand(size, device=self.device, generator=self.generator))

    def normal(self, num_samples: int, *shape: int) -> Tensor:
        """Draw from the normal distribution of mean 0 and variance 1: B x *shape."""
        size = (num_samples * self.num_parts, *shape)
        return self._own_rows(torch.randn(size, device=self.device, generator=self.generator))

    def poisson(self, mean: float, num_samples: int, *shape: int) -> Tensor:
        """Draw Poisson counts of the given mean, as float32: B x *shape."""
        size = (num_samples * self.num_parts, *shape)
        means = torch.full(size, mean, dtype=torch.float32, device=self.device)
        return self._own_rows(torch.poisson(means, generator=self.generator))

    def beta(self, a: float, b: float, num_samples: int) -> Tensor:
        """Draw one number for each sample from Beta(a, b): B."""
        total = num_samples * self.num_parts
        # Made on the device: to copy Python numbers there, the host would have to wait.
        parameters = torch.stack(
            [torch.full((total,), parameter, device=self.device) for parameter in (a, b)], dim=1
        )
        # torch.distributions.Beta uses this function too, but takes no generator.
        return self._own_rows(torch._sample_dirichlet(parameters, generator=self.generator)[:, 0])

    @property
    def device(self) -> torch.device:
        """Device of the numbers that are drawn."""
        return self.generator.device

    def _own_rows(self, drawn: Tensor) -> Tensor:
        """The rows of this part, of numbers drawn for the whole batch."""
        return drawn.chunk(self.num_parts)[self.part]
