"""Samplers that bucket by length and know about processes, and a loader that a checkpoint can resume mid-epoch."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler

POOL = 50  # batches of similar length are cut out of this many shuffled batches: large enough to pad little


def seed() -> int:
    """The run's seed, as Lightning's `seed_everything` left it for samplers and workers."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def world() -> tuple[int, int]:
    """Number of processes and the number of this one; call it after they were started."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


class _Sampler(DistributedSampler, ABC):
    """An order of row numbers for this process. A DistributedSampler, so that Lightning leaves it alone.

    Args:
        lengths: tokens of each row.
        batch_size: rows a process and batch.
    """

    def __init__(self, lengths: list[int], batch_size: int):
        processes, rank = world()
        super().__init__(range(len(lengths)), num_replicas=processes, rank=rank, seed=seed())  # type: ignore[arg-type]
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.start = 0
        """Rows of this process to leave out at the beginning of the next pass (resume)."""

    @abstractmethod
    def order(self) -> list[int]:
        """Row numbers of this process for the present epoch."""

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.start :])


@final
class BucketSampler(_Sampler):
    """Training order: a pure function of seed and epoch, in chunks of similar length whose order is shuffled.

    A chunk is the global batch (batch_size × processes) and each process takes its slice of it, so n processes with
    batches of b see what one process with batches of n·b sees. The rows that fill no chunk come last, cut to a
    multiple of the number of processes.
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


@final
class EvalSampler(_Sampler):
    """Evaluation order: longest first, each row exactly once over all processes, which may get uneven numbers.

    Where there are fewer rows than processes every process gets all of them: metrics are of shares, so they are the
    same, and none is left out, whom the others would wait for.
    """

    def order(self) -> list[int]:
        """Row numbers of this process."""
        return self.lengths.argsort(stable=True, descending=True)[self._share].tolist()

    @property
    def _share(self) -> slice:
        return slice(None) if len(self.lengths) < self.num_replicas else slice(self.rank, None, self.num_replicas)

    def __len__(self) -> int:
        return len(range(len(self.lengths))[self._share])


@final
class Loader(DataLoader):
    """A DataLoader with its own random generator and a state, so that a resumed run gets the batches it lacks.

    Iterators start at their first `next`, not at `iter`: Lightning makes the iterator before it tells the sampler the
    epoch. Batches already done are skipped in the sampler, never tokenized or collated.
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, sampler: Any = None, **kwargs: Any):
        kwargs.setdefault("generator", torch.Generator().manual_seed(seed()))
        super().__init__(dataset, batch_size=batch_size, sampler=sampler, **kwargs)
        self._epoch = self._done = 0
        self._resume: dict[str, int] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if not isinstance(self.sampler, _Sampler):  # Lightning's own, for `predict` or `overfit_batches`
            yield from super().__iter__()
            return
        resume, self._resume = self._resume, {}
        self._epoch = self.sampler.epoch
        # a checkpoint of an epoch's end says how much of the *last* epoch is done: nothing of this one
        self._done = resume["done"] if resume.get("epoch") == self._epoch else 0
        self.sampler.start = self._done * self.sampler.batch_size
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches handed out."""
        return {"epoch": self._epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batches that `state` says are done, in the epoch it names."""
        self._resume = dict(state)
        self._epoch, self._done = state["epoch"], state["done"]
