"""`Stored`: what is kept of a method: its trained tensors with what they depend on, in checkpoints and in one file."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.tasks.spec import HeadSpec
from ptune.tuning import saving
from ptune.tuning.reparameterized import Reparameterized


class Stored(L.LightningModule, ABC):
    """Saving and loading of every method: trained tensors only, and only into the model that they were trained in."""

    stored_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments on which the shape and meaning of the method's tensors depend; they are stored with the tensors."""
    prompt: nn.Module | None
    """The method's own tensors, if it has any."""
    backbone: Backbone
    head_spec: HeadSpec
    recipe: dict[str, Any]
    """How the rows that the model was checked with are read: class, arguments, and what was learned from data."""
    _folded = False  # whether what the arguments say is computed from other tensors no longer is
    _started = False  # whether the trained tensors have their initial values, or others since then
    _resumed: dict[str, Any] | None = None  # the checkpoint that a run is resumed from

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained tensors by name."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors, and the units that they are in, only."""
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self._kept()}
        checkpoint["metadata"] = self.metadata()
        checkpoint["folded"] = self._folded
        checkpoint["recipe"], checkpoint["precision"] = self.recipe, self._precision

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, or one that does not hold exactly what `on_save_checkpoint` kept."""
        own, saved = self.metadata(), checkpoint["metadata"]
        if checkpoint.get("folded"):
            self.fold()
        models = [found | {"backbone": found["fingerprint"]} for found in (saved, own)]  # the folder may have moved
        tensors = [{"tensors": saving.shapes(found)} for found in (checkpoint["state_dict"], self._kept())]
        saving.compare("the checkpoint", models[0] | tensors[0], models[1] | tensors[1])
        self.recipe = checkpoint.get("recipe") or self.recipe
        self._resumed = checkpoint if "loops" in checkpoint else None
        self._started = True

    def _kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the trained tensors, and what the prompt has measured and does not train."""
        measured = {} if self.prompt is None else dict(self.prompt.named_buffers(prefix="prompt"))
        return {**self.trained(), **measured}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Torch's, but frozen tensors do not count as missing: Lightning would warn with the whole backbone's names."""
        keys, trained = super().load_state_dict(state_dict, strict, assign), self.trained()
        return keys._replace(missing_keys=[name for name in keys.missing_keys if name in trained])

    def metadata(self) -> dict[str, str]:
        """What saved tensors depend on: method, its stored arguments, backbone and its fingerprint, task, labels."""
        self.configure_model()
        return {
            "backbone": self.hparams["backbone"],
            "fingerprint": self.backbone.fingerprint,
            "method": type(self).__name__,
            "task": self.head_spec.task,
            "head": self.head_spec.kind,
            "labels": json.dumps(self.head_spec.labels),
            "template": self.head_spec.template,
            "words": json.dumps(self.head_spec.words),
            "pooling": self.backbone.pooling,
        } | {name: str(self.hparams[name]) for name in self.stored_arguments}

    @property
    def _precision(self) -> str:
        """Lightning's precision that the model was trained or evaluated with."""
        return "32-true" if self._trainer is None else str(self._trainer.precision)

    def save_prompts(self, path: str | os.PathLike) -> None:
        """Write the trained tensors (a reparameterized prefix folded) and their metadata as one safetensors file.

        With the arguments of the model and the recipe of its rows in the metadata, `ptune.load` needs nothing else.
        """
        arguments = {name: value for name, value in self.hparams.items() if name != "head"}
        whole = {"arguments": json.dumps(saving.plain(arguments), default=str), "recipe": json.dumps(self.recipe)}
        saving.save(path, self.tensors(), self.metadata() | whole | {"precision": self._precision})

    def save_parts(self, folder: Path) -> None:
        """Write a file into `folder` for each of several tasks that the model was trained on at once; else none."""

    def load_prompts(self, path: str | os.PathLike) -> None:
        """Load what `save_prompts` wrote; the tensors stay trainable. Raises InputError that names what differs."""
        tensors, saved = saving.load(path)
        own = self.metadata()
        if saved.get("fingerprint") == own["fingerprint"]:
            saved["backbone"] = own["backbone"]  # the same weights under another name
        saving.compare(str(path), saved, own)
        saving.compare(str(path), {"tensors": saving.shapes(tensors)}, {"tensors": saving.shapes(self.tensors())})
        saving.check_values(str(path), tensors)
        self.fold()
        for name, value in self.trained().items():
            value.data.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors as they are saved for use: a reparameterized prompt is folded."""
        prompt = self.folded_prompt()
        own = {} if prompt is None else {f"prompt.{name}": value for name, value in prompt.named_parameters()}
        rest: dict[str, Tensor] = {n: value for n, value in self.trained().items() if not n.startswith("prompt.")}
        return rest | own

    def fold(self) -> None:
        """Replace a reparameterized prompt by what it computes; the scores stay the same."""
        self._folded = self._folded or isinstance(self.prompt, Reparameterized)
        self._started = True
        self.prompt = self.folded_prompt()

    def folded_prompt(self) -> nn.Module | None:
        """The prompt without its reparameterization."""
        if not isinstance(self.prompt, Reparameterized):
            return self.prompt
        return self.prompt.folded().train(self.prompt.training)
