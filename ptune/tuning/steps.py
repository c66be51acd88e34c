"""`Steps`: what Lightning does with a batch: training, validation, test and prediction steps, and logged metrics."""

import hashlib
import os
from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from ptune.errors import InputError
from ptune.heads import Batch, Head
from ptune.heads.metrics import Scores
from ptune.tuning.recipe import is_own


class Steps(L.LightningModule, ABC):
    """The steps of every method: the loss of a training batch, and the task's metrics over an evaluated split."""

    head: Head
    metrics: Scores
    loss_sum: SumMetric
    loss_count: SumMetric
    split: str = "val"
    """Name under which metrics are logged; `val` is the split that chooses the checkpoint."""
    _gradients_checked = False

    @abstractmethod
    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """The trained tensors by name in three groups: prompt, head and backbone."""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the step's place in the run, so that a resumed run equals the uninterrupted one."""
        place = f"{os.environ.get('PL_GLOBAL_SEED', 0)}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest()))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss over the global batch: gradients are averaged over processes, so each divides by the mean count."""
        total, count = self.head.loss(self(batch), batch)
        count = count.float()
        if self.trainer.world_size > 1:
            count = self.trainer.strategy.reduce(count, reduce_op="mean")
        loss = total / count
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_rows(batch))
        # The factor is 1, or NaN for a loss that is not finite: its gradient is then NaN in every process.
        return loss * (1 + 0 * loss.detach())

    def on_after_backward(self) -> None:
        """After the first backward pass of a fit, check that the loss depends on what is trained.

        Every tensor of the prompt and of the head must have a gradient. Of the backbone's tensors, one must: those that
        no input reads are known before training (`unused`), and others depend on the batch, such as XLNet's segment
        embeddings (token types) or the experts of a mixture.

        Raises:
            InputError: a trained tensor has no gradient; it would keep its initial value in silence.
        """
        if self._gradients_checked:
            return
        self._gradients_checked = True
        groups = self.groups()
        missing = {group: [n for n, v in named.items() if v.grad is None] for group, named in groups.items()}
        if len(missing.get("backbone", [])) < len(groups.get("backbone", {})):
            del missing["backbone"]
        names = [name for named in missing.values() for name in named]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(
                f"{names[0]}{more} gets no gradient: the loss does not depend on it; check that "
                f"{type(self).__name__}.prompts returns what is computed from it, not a detached copy, and that the "
                "backbone reads it."
            )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """End a run that reaches `max_steps` within an epoch with a validation, so that there is a best checkpoint.

        Lightning validates when `should_stop` is set, unless `check_val_every_n_epoch` or `limit_val_batches` rule it
        out.
        """
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add the scores to the task's metrics, and return them."""
        scores = self(batch)
        self.metrics.update(scores, batch)
        if "labels" in batch:
            total, count = self.head.loss(scores, batch)
            self.loss_sum.update(total)
            self.loss_count.update(count)
        return scores

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the split; torchmetrics has gathered every row of every process once."""
        values = {f"{self.split}/{name}": value for name, value in self.metrics.compute().items()}
        self.log_dict(values, prog_bar=True)
        self.metrics.reset()
        if self.loss_sum.update_called:
            self.log(f"{self.split}/loss", self.loss_sum.compute() / self.loss_count.compute())
        self.loss_sum.reset()
        self.loss_count.reset()

    def on_test_epoch_start(self) -> None:
        """Name the metrics after the split that is tested."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.split = data.splits[-1] if is_own(data) else "test"

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add the scores to the task's metrics, and return them."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the split."""
        self.on_validation_epoch_end()
        self.split = "val"

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores of a batch, in the form of the head's `forward`."""
        return self(batch)


def batch_rows(batch: Batch) -> int:
    """Rows in a training batch."""
    return len(batch["labels"])
