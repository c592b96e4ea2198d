"""Random numbers for the samples of a batch, the same however the batch is divided."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class BatchRandom(NamedTuple):
    """Random numbers of one part of a batch: its share of what is drawn for the whole.

    A batch is divided among processes, and in each process into what fits into memory. Every part
    draws for all samples, and keeps its own rows: so each sample gets the numbers that it would
    get in one undivided batch.

    generator: on the device of the batch; in the same state for every part.
    part, num_parts: which part of how many, all of the same size.
    """

    generator: torch.Generator
    part: int = 0
    num_parts: int = 1

    def split(self, num_parts: int) -> list[Self]:
        """Of this part in `num_parts` smaller ones."""
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

    def uniform(self, batch: int, *shape: int) -> Tensor:
        """From [0, 1): batch x *shape, for a part of `batch` samples."""
        size = (batch * self.num_parts, *shape)
        return self._own(torch.rand(size, device=self.device, generator=self.generator))

    def normal(self, batch: int, *shape: int) -> Tensor:
        """Of mean 0 and variance 1: batch x *shape."""
        size = (batch * self.num_parts, *shape)
        return self._own(torch.randn(size, device=self.device, generator=self.generator))

    def poisson(self, mean: float, batch: int, *shape: int) -> Tensor:
        """Counts of that mean, as float: batch x *shape."""
        size = (batch * self.num_parts, *shape)
        means = torch.full(size, mean, dtype=torch.float32, device=self.device)
        return self._own(torch.poisson(means, generator=self.generator))

    def beta(self, a: float, b: float, batch: int) -> Tensor:
        """From Beta(a, b): batch."""
        total = batch * self.num_parts
        # Filled in on the device: a tensor of Python numbers would have the host wait for its copy.
        parameters = torch.stack(
            [torch.full((total,), parameter, device=self.device) for parameter in (a, b)], dim=1
        )
        # What torch.distributions.Beta draws with, which takes no generator.
        return self._own(torch._sample_dirichlet(parameters, generator=self.generator)[:, 0])

    @property
    def device(self) -> torch.device:
        """Of the numbers."""
        return self.generator.device

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn.chunk(self.num_parts)[self.part]
