"""`FrozenLayers`: what the layers below all that is trained compute, once for a row instead of in every epoch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ptune.data import cache
from ptune.data.base import Batch, TaskData
from ptune.errors import InputError, note
from ptune.tuning.tuner import PromptTuner

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 32
"""Rows of a pass that fills the cache, whatever the run's batch size is: what is kept must not depend on the run."""


@final
class FrozenLayers(Callback):
    """Keeps the hidden states that enter the first layer which training changes, for every token, on disk.

    They are computed before the first step for the training split and for the split that chooses the checkpoint, and
    are shared by all runs of the same backbone, layer and rows: seeds, rates, prompt lengths, cells of a grid, trials
    of a search. A batch then costs the layers above alone. Other splits are evaluated once and are not kept. The states
    are fp32 numbers, one vector of width d a token; they differ from those of a training batch by float error alone
    (other rows stand beside a row), and are the same in every run that reads them.

    Args:
        data: the data module of the run.
        wanted: whether it is an error where nothing can be kept.
        limit: largest size on disk in GiB.
    """

    def __init__(self, data: TaskData, wanted: bool, limit: float) -> None:
        self.data, self.wanted, self.limit = data, wanted, limit
        self.parts: dict[str, Dataset] = {}
        """The kept states of each split."""

    def setup(self, trainer: L.Trainer, pl_module: PromptTuner, stage: str) -> None:  # type: ignore[override]
        """Let batches tell their rows: Lightning makes the training loader before `on_fit_start`."""
        data = self.data
        data.numbered = frozenset({data.task.train, data.chosen_on} & data.fingerprints().keys())

    def on_fit_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:  # type: ignore[override]
        """Compute what is not kept yet, and let the model read it.

        Raises:
            InputError: nothing can be kept, or it is larger than the limit; where it is not `wanted`, the run goes on
                without.
        """
        data, n = self.data, pl_module.frozen_layers
        splits = sorted(data.numbered)
        tokens = sum(sum(data.items_of(split)["length"][:]) for split in splits)
        size = tokens * pl_module.spec.width * 4 / 2**30
        if gap := self._gap(pl_module, n, size):
            if self.wanted:
                raise InputError(f"cache_frozen: true, but {gap}; leave it out.")
            return
        if trainer.is_global_zero:
            note(f"the lowest {n} layers are computed once, {size:.2f} GiB or more in {cache.folder()}")
        for split in splits:
            self.parts[split] = self._kept(trainer, pl_module, n, split)
        pl_module.known = lambda batch: (n, self.states(batch))

    def _gap(self, model: PromptTuner, n: int, size: float) -> str:
        """Why nothing is kept; empty where it can be."""
        if n == 0:
            others = "other than LinearProbe, LatePromptTuning, or PTuningV2 with layers: last:N and without also"
            return f"{type(model).__name__} trains what the lowest layer computes ({others}), or that layer drops out"
        if gap := model.backbone.cut_gap(n):
            return f"{model.spec.who} cannot begin at layer {n}: {gap}"
        if size > self.limit:
            return f"{size:.1f} GiB exceed --cache_limit {self.limit:g}"
        return ""

    def _kept(self, trainer: L.Trainer, model: PromptTuner, n: int, split: str) -> "Dataset":
        items, backbone = self.data.items_of(split), model.backbone
        parts = [backbone.fingerprint, n, model.shift, backbone.attention, str(trainer.precision)]
        parts += [model.device.type, torch.__version__, self.data.slots, self.data.fingerprints()[split]]
        name = f"states-{self.data.task.name.replace('/', '-')}-{split}-{cache.key(*parts)}"
        return cache.cached(name, lambda: self._blocks(trainer, model, n, items), "computing layers", len(items))

    @torch.no_grad()
    def _blocks(
        self, trainer: L.Trainer, model: PromptTuner, n: int, items: "Dataset"
    ) -> Iterator[list[dict[str, bytes]]]:
        """The states of all items in their order, some at a time."""
        for start in range(0, len(items), cache.BLOCK):
            block = [items[i] for i in range(start, min(start + cache.BLOCK, len(items)))]
            order = sorted(range(len(block)), key=lambda i: -block[i]["length"])
            found: dict[int, dict[str, bytes]] = {}
            for first in range(0, len(order), BATCH):
                numbers = order[first : first + BATCH]
                batch = self.data.collate([block[i] for i in numbers])
                counts = [int(self.data.collate([block[i]])["attention_mask"].sum()) for i in numbers]
                batch = {key: value.to(model.device) for key, value in batch.items() if isinstance(value, Tensor)}
                with trainer.strategy.precision_plugin.forward_context():
                    states = model.backbone.below(batch, n, model.shift)
                flat = states[batch["attention_mask"].bool()].float().cpu().split(counts)
                found |= {i: {"states": own.numpy().tobytes()} for i, own in zip(numbers, flat, strict=True)}
            yield [found[i] for i in range(len(block))]

    def states(self, batch: Batch) -> Tensor:
        """The kept states of a batch with `numbers`, "b t d", zero at the padding."""
        split, numbers = batch["numbers"]  # type: ignore[misc]
        mask = batch["attention_mask"].bool()
        flat = np.concatenate([np.frombuffer(own, np.float32) for own in self.parts[split][numbers]["states"]])
        states = torch.zeros(*mask.shape, len(flat) // int(mask.sum()))
        states[mask.cpu()] = torch.from_numpy(flat).view(-1, states.shape[-1])
        return states.to(mask.device)
