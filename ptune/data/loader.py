"""Samplers that bucket by length and divide rows among processes, and a loader that resumes within an epoch."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler

POOL = 50
"""Rows of so many batches are sorted by length together: enough that batches need little padding."""


def seed() -> int:
    """The run's seed, which Lightning's `seed_everything` leaves in the environment."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def world() -> tuple[int, int]:
    """Number of processes and the rank of this one; call it after the processes were started."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


class _Sampler(DistributedSampler, ABC):
    """An order of row numbers for this process. It is a DistributedSampler, so that Lightning does not replace it.

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch, for each process.
    """

    def __init__(self, lengths: list[int], batch_size: int):
        processes, rank = world()
        super().__init__(range(len(lengths)), num_replicas=processes, rank=rank, seed=seed())  # type: ignore[arg-type]
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.start = 0
        """Number of this process's rows to skip at the beginning of the next pass, in a resumed epoch."""

    @abstractmethod
    def order(self) -> list[int]:
        """Row numbers of this process for the present epoch."""

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.start :])


@final
class BucketSampler(_Sampler):
    """Training order: a pure function of seed and epoch, in chunks of similar length whose order is shuffled.

    A chunk is the global batch (batch_size × processes) and each process takes its slice of it, so n processes with
    batches of b read the same rows in a step as one process with batches of n·b. The rows that do not fill a chunk come
    last, cut to a multiple of the number of processes.
    """

    def order(self) -> list[int]:
        """Row numbers of this process for the present epoch."""
        n, chunk = len(self.lengths), self.batch_size * self.num_replicas
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(n, generator=generator)
        full = n - n % chunk
        chunks = []
        for pool in shuffled[:full].split(chunk * POOL):
            chunks += pool[self.lengths[pool].argsort(stable=True)].split(chunk)
        chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=generator).tolist()]
        rest = shuffled[full : n - n % self.num_replicas]
        return torch.cat([c[self.rank :: self.num_replicas] for c in [*chunks, rest]]).tolist()

    def __len__(self) -> int:
        return len(self.lengths) // self.num_replicas


class _OnceEach(_Sampler):
    """Each row exactly once over all processes, whose numbers of rows may differ by 1.

    With fewer rows than processes every process evaluates all rows: averages stay right, and no process is missing in a
    collective operation.
    """

    @property
    def _share(self) -> slice:
        return slice(None) if len(self.lengths) < self.num_replicas else slice(self.rank, None, self.num_replicas)

    def __len__(self) -> int:
        return len(range(len(self.lengths))[self._share])


@final
class EvalSampler(_OnceEach):
    """Evaluation order: longest first, so that batches need little padding."""

    def order(self) -> list[int]:
        """Row numbers of this process."""
        return self.lengths.argsort(stable=True, descending=True)[self._share].tolist()


@final
class InOrder(_OnceEach):
    """The order of the rows, for predictions."""

    def order(self) -> list[int]:
        """Row numbers of this process."""
        return list(range(len(self.lengths)))[self._share]


@final
class Loader(DataLoader):
    """A DataLoader with its own random generator and a state, so that a resumed run gets the remaining batches.

    Iterators start at their first `next`, not at `iter`: Lightning makes the iterator before it sets the sampler's
    epoch. Batches already done are skipped in the sampler, never tokenized or collated.
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, sampler: Any = None, **kwargs: Any):
        kwargs.setdefault("generator", torch.Generator().manual_seed(seed()))
        super().__init__(dataset, batch_size=batch_size, sampler=sampler, **kwargs)
        self._epoch = self._done = 0
        self._resume: dict[str, int] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if not isinstance(self.sampler, _Sampler):  # Lightning's own sampler, for `predict` or `overfit_batches`
            yield from super().__iter__()
            return
        resume, self._resume = self._resume, {}
        self._epoch = self.sampler.epoch
        # a checkpoint from the end of an epoch counts the batches of that epoch, not of this one
        self._done = resume["done"] if resume.get("epoch") == self._epoch else 0
        self.sampler.start = self._done * self.sampler.batch_size
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches handed out."""
        return {"epoch": self._epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batches that `state` counts as done, in its epoch."""
        self._resume = dict(state)
        self._epoch, self._done = state["epoch"], state["done"]
