"""Rows of ptune's methods, with the options that `ptune.fit` gives them where a row's name says nothing else."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from ptune.benchmarks.contender import LABELS, Contender, Setting, training
from ptune.methods.bitfit import BitFit
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.lora import LoRA
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.run.frozen import FrozenLayers
from ptune.tasks.spec import HeadSpec
from ptune.tuning.tuner import PromptTuner

HEAD = HeadSpec("bench", "classify", LABELS, ("accuracy",), "accuracy")
PROMPTED = (PTuning, PTuningV2, PromptTuning)
"""The methods with a prompt length."""
ALONE: dict[str, Any] = {"prefix_dropout": 0.0, "head_dropout": 0.0}
"""PTuningV2 without any dropout."""

Row = Callable[[Setting], Contender]


def made(method: type[PromptTuner], setting: Setting, head: HeadSpec = HEAD, **arguments: Any) -> PromptTuner:
    """A method's model of the setting's backbone and prompt length, whose weights are not loaded yet."""
    length = {"length": setting.length} if method in PROMPTED else {}
    return method(backbone=setting.backbone, head=head, **length, **arguments)


def built(method: type[PromptTuner], setting: Setting, **arguments: Any) -> PromptTuner:
    """A method's model on the setting's device, as a run has it before its first step."""
    model = made(method, setting, **arguments)
    model.configure_model()
    return model.to(setting.device)


def ours(method: type[PromptTuner], **arguments: Any) -> Row:
    """A row of one of ptune's methods."""

    def row(setting: Setting) -> Contender:
        model = built(method, setting, **arguments)
        return _trained(setting, model, setting.texts(model.slots))

    return row


def cached(method: type[PromptTuner], **arguments: Any) -> Row:
    """The same with `cache_frozen: true`, in an epoch after the first: the kept states of the batch are read."""

    def row(setting: Setting) -> Contender:
        model, batch = built(method, setting, **arguments), setting.texts()
        n, mask = model.frozen_layers, batch["attention_mask"].bool()
        states = model.backbone.below(batch, n, model.shift)
        kept = [text[real].cpu().numpy().tobytes() for text, real in zip(states, mask, strict=True)]
        frozen = FrozenLayers(None, True, 0.0)  # type: ignore[arg-type]  # it is asked for states alone
        frozen.parts["train"] = Dataset.from_dict({"states": kept})
        model.known = lambda batch: (n, frozen.states(batch))
        return _trained(setting, model, batch | {"numbers": ("train", [*range(setting.batch)])})

    return row


def _trained(setting: Setting, model: PromptTuner, batch: dict) -> Contender:
    def loss():
        total, count = model.head.loss(model(batch), batch)
        return total / count

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prompts.safetensors")
        model.save_prompts(file)
        size = file.stat().st_size
    return training(setting, model, loss, size)


OURS: dict[str, Row] = {
    "LinearProbe": ours(LinearProbe),
    "LinearProbe-cached": cached(LinearProbe),
    "BitFit": ours(BitFit),
    "LoRA": ours(LoRA),
    "PromptTuning": ours(PromptTuning),
    "PTuning": ours(PTuning),
    "PTuningV2": ours(PTuningV2),
    "PTuningV2-no-dropout": ours(PTuningV2, **ALONE),
    "PTuningV2-last2": ours(PTuningV2, layers="last:2"),
    "PTuningV2-last2-cached": cached(PTuningV2, layers="last:2"),
    "FineTuning": ours(FineTuning),
}
