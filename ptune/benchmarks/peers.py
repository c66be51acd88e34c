"""Rows of other libraries, as their own examples run them: PEFT's adapters, and plain fine-tuning by transformers.

All have the loop of the other rows: forward, backward, AdamW. transformers' Trainer would add its own time.
"""

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from ptune.backbone.loading import copied, without_report
from ptune.backbone.pretrained import describe, origin
from ptune.benchmarks.contender import LABELS, Contender, Setting, training
from ptune.tuning.injected import peft_library


def classifier(backbone: str, dropout: bool, labels: int = len(LABELS)) -> nn.Module:
    """transformers' own classifier with the checkpoint's dropout, or with every probability 0."""
    config = copied(describe(backbone).config, dropout)
    config.num_labels = labels
    with without_report():  # that the classifier is new is meant
        return AutoModelForSequenceClassification.from_pretrained(**origin(backbone), config=config)


def adapted(backbone: str, kind: str, dropout: bool, labels: int = len(LABELS), **options: Any) -> nn.Module:
    """transformers' classifier under PEFT's configuration `kind` for sequence classification."""
    peft = peft_library()
    config = getattr(peft, kind)(task_type="SEQ_CLS", **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")  # PEFT asks transformers by its old name
        return peft.get_peft_model(classifier(backbone, dropout, labels), config)


def _peft(setting: Setting, kind: str, dropout: bool, **options: Any) -> Contender:
    model = adapted(setting.backbone, kind, dropout, **options).to(setting.device)
    stored = peft_library().get_peft_model_state_dict(model, save_embedding_layers=False)
    return training(setting, model, _loss(setting, model), stored)


def _loss(setting: Setting, model: nn.Module) -> Callable[[], Tensor]:
    batch = setting.texts()
    return lambda: model(**batch).loss


def prefix(setting: Setting) -> Contender:
    """PEFT's prefix tuning as its users run it.

    `get_peft_model` of `AutoModelForSequenceClassification` with `PrefixTuningConfig(task_type="SEQ_CLS",
    num_virtual_tokens=p)`, `model.train()`, the checkpoint's dropout (0.1 for BERT) within the frozen backbone, AdamW:
    huggingface/peft 086b329, examples/sequence_classification/prefix_tuning.ipynb.
    """
    return _peft(setting, "PrefixTuningConfig", True, num_virtual_tokens=setting.length)


def prefix_without_dropout(setting: Setting) -> Contender:
    """The same with every dropout probability of the config 0, which its example does not do: the equal work."""
    return _peft(setting, "PrefixTuningConfig", False, num_virtual_tokens=setting.length)


def prompt(setting: Setting) -> Contender:
    """PEFT's prompt tuning: `PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=p)` in train mode.

    huggingface/peft d45208d, examples/sequence_classification/Prompt_Tuning.ipynb, which has 10 vectors.
    """
    return _peft(setting, "PromptTuningConfig", True, num_virtual_tokens=setting.length)


def lora(setting: Setting) -> Contender:
    """PEFT's LoRA of query and value, rank 8 and alpha 8, in train mode, with no dropout of its own.

    `LoraConfig(task_type="SEQ_CLS")`: rank, alpha and targets are PEFT's defaults, and those of ptune's `LoRA`.
    """
    return _peft(setting, "LoraConfig", True)


def fine_tuning(setting: Setting) -> Contender:
    """transformers' `AutoModelForSequenceClassification` in train mode, all weights trained.

    huggingface/transformers, examples/pytorch/text-classification/run_glue_no_trainer.py.
    """
    model = classifier(setting.backbone, True).to(setting.device)
    return training(setting, model, _loss(setting, model), model.state_dict())


PEFT = {
    "PEFT-prefix": prefix,
    "PEFT-prefix-no-dropout": prefix_without_dropout,
    "PEFT-prompt": prompt,
    "PEFT-LoRA": lora,
}
"""The rows that need `ptune[peft]`."""
PEERS = PEFT | {"transformers-fine-tuning": fine_tuning}
