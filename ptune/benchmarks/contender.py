"""What every row of a comparison has alike, its `Setting`, and one row that is ready to be measured, a `Contender`."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, final

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ptune.backbone.pretrained import describe
from ptune.heads import Batch

Precision = Literal["32-true", "bf16-mixed"]
LABELS = ("no", "yes")
LEARNING_RATE = 1e-5


@final
@dataclass(frozen=True)
class Setting:
    """A training step's shape, the same for all rows that are compared."""

    backbone: str
    """Folder, hub id or `package:NAME/PATH`."""
    tokens: int = 64
    """Tokens t of the longest text of the batch, prompt slots not counted."""
    batch: int = 32
    """Texts b in a batch."""
    length: int = 20
    """Prompt length p of all prompts and prefixes."""
    device: str = "cpu"
    precision: Precision = "32-true"
    """As Lightning's `trainer.precision`; `bf16-mixed` is autocast around the forward pass, of every row."""

    @classmethod
    def of(cls, options: argparse.Namespace, **more: Any) -> "Setting":
        """What the options of a command line say; `more` are those that they do not."""
        names = [field.name for field in fields(cls) if field.name not in more and field.name in vars(options)]
        return cls(**{name: getattr(options, name) for name in names}, **more)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def texts(self, slots: int = 0) -> Batch:
        """The batch, the same in every call: random words, labels, and lengths from 7/8 t to t.

        So little padding is what batches of texts of similar lengths have; every row computes it, too.

        Args:
            slots: number of prompt slots, which are put behind the first token of every text.
        """
        config, draw = describe(self.backbone).config, torch.Generator().manual_seed(0)
        words = config.get_text_config().vocab_size
        ids = torch.randint(words // 2, words, (self.batch, self.tokens + slots), generator=draw)
        lengths = self.tokens - torch.arange(self.batch) % (self.tokens // 8 + 1)
        mask = torch.arange(self.tokens + slots) < lengths[:, None] + slots
        batch = {
            "input_ids": ids.where(mask, torch.tensor(config.pad_token_id or 0)),
            "attention_mask": mask.long(),
            "labels": torch.arange(self.batch) % len(LABELS),
        }
        if slots:
            places = torch.arange(self.tokens + slots)
            batch["slots"] = ((places > 0) & (places <= slots)).expand(self.batch, -1)
        return {name: value.to(self.device) for name, value in batch.items()}

    @property
    def real_tokens(self) -> int:
        """Tokens of the batch that are no padding and no prompt slots."""
        return int(self.texts()["attention_mask"].sum())


@final
@dataclass(frozen=True)
class Contender:
    """One row, ready to be measured."""

    step: Callable[[], None]
    """One training step of the setting's batch."""
    trained: int = 0
    """Trained numbers."""
    stored: int = 0
    """Bytes of the file that holds what was trained."""


def training(
    setting: Setting, model: nn.Module, loss: Callable[[], Tensor], stored: Mapping[str, Tensor] | int
) -> Contender:
    """A row that trains a model in train mode, with the optimizer of all rows: torch's AdamW on what is trained.

    Args:
        setting: of all rows.
        model: on the setting's device.
        loss: the loss of the batch.
        stored: the tensors that are written after training, or the bytes of their file.
    """
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    def step() -> None:
        with setting.autocast():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    size = stored if isinstance(stored, int) else file_size(stored)
    return Contender(step, numbers(trained), size)


def numbers(tensors: Iterable[Tensor]) -> int:
    """How many numbers tensors hold."""
    return sum(value.numel() for value in tensors)


def file_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of a safetensors file with these tensors."""
    return len(save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}))
