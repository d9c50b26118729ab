"""Which clip and which noise every sample of every update gets: a pure function of (seed, update, position).

No random state is carried along, so a resumed run needs none, and it does not matter how the effective batch is split into
processes and micro-steps: position j of update u is the same sample everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


def key(*parts: int | str) -> int:
    """Return a 63-bit seed for ``torch.Generator`` that depends on every part and on their order.

    >>> key(0, "noise", 5, 1) == key(0, "noise", 5, 1) != key(0, "noise", 1, 5)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Sample:
    """One sample of an update: its position in the effective batch, the clip it starts from, the seed of its noise."""

    position: int
    clip: int
    noise: int


@dataclass(frozen=True)
class Plan:
    """How ``clips`` clips are visited in shuffled epochs by batches of ``processes x batch_size x accumulation`` samples.

    Example::

        plan = Plan(seed=0, clips=100, batch_size=2, accumulation=4, processes=1)
        plan.batch(update=0, process=0, micro=1)   # 2 samples, positions 2 and 3
    """

    seed: int
    clips: int
    batch_size: int
    accumulation: int
    processes: int

    @property
    def effective(self) -> int:
        """Samples per update over all processes."""
        return self.processes * self.batch_size * self.accumulation

    def sample(self, update: int, position: int) -> Sample:
        """Return the sample at one position of an update's effective batch."""
        epoch, place = divmod(update * self.effective + position, self.clips)
        return Sample(position, self._epoch(epoch)[place], key(self.seed, "noise", update, position))

    def batch(self, update: int, process: int, micro: int) -> list[Sample]:
        """Return the samples of one process in one micro-step."""
        first = (micro * self.processes + process) * self.batch_size
        return [self.sample(update, first + i) for i in range(self.batch_size)]

    def _epoch(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(key(self.seed, "order", epoch))
        return torch.randperm(self.clips, generator=generator).tolist()
