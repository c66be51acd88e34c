"""ptune: a PyTorch Lightning research framework for tuning language models by their prompts.

Names load on first use, so that `import ptune` is quick and needs neither lightning nor datasets nor wandb.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptune.backbone import Backbone
    from ptune.backbone.pretrained import describe
    from ptune.data.choice import MultipleChoice
    from ptune.data.classification import Classification
    from ptune.data.fill import Fill
    from ptune.data.qa import SpanQA
    from ptune.data.tagging import Tagging
    from ptune.errors import InputError
    from ptune.methods.bitfit import BitFit
    from ptune.methods.fine_tuning import FineTuning
    from ptune.methods.linear_probe import LinearProbe
    from ptune.methods.lora import PEFT, LoRA
    from ptune.methods.manual import ManualPrompt
    from ptune.methods.p_tuning import PromptEncoder, PTuning
    from ptune.methods.p_tuning_v2 import PrefixEncoder, PTuningV2
    from ptune.methods.prompt_tuning import PromptTuning, SoftPrompt
    from ptune.prompts import Prompts
    from ptune.tasks import task
    from ptune.tasks.spec import HeadSpec, TaskSpec
    from ptune.tasks.templates import Template, Verbalizer
    from ptune.tuning.tuner import PromptTuner

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbone",
    "BitFit": "methods.bitfit",
    "Classification": "data.classification",
    "Fill": "data.fill",
    "FineTuning": "methods.fine_tuning",
    "HeadSpec": "tasks.spec",
    "InputError": "errors",
    "LinearProbe": "methods.linear_probe",
    "LoRA": "methods.lora",
    "ManualPrompt": "methods.manual",
    "MultipleChoice": "data.choice",
    "PEFT": "methods.lora",
    "PTuning": "methods.p_tuning",
    "PTuningV2": "methods.p_tuning_v2",
    "PrefixEncoder": "methods.p_tuning_v2",
    "PromptEncoder": "methods.p_tuning",
    "PromptTuner": "tuning.tuner",
    "PromptTuning": "methods.prompt_tuning",
    "Prompts": "prompts",
    "SoftPrompt": "methods.prompt_tuning",
    "SpanQA": "data.qa",
    "Tagging": "data.tagging",
    "TaskSpec": "tasks.spec",
    "Template": "tasks.templates",
    "Verbalizer": "tasks.templates",
    "describe": "backbone.pretrained",
    "task": "tasks",
}

__all__ = [
    "PEFT",
    "Backbone",
    "BitFit",
    "Classification",
    "Fill",
    "FineTuning",
    "HeadSpec",
    "InputError",
    "LinearProbe",
    "LoRA",
    "ManualPrompt",
    "MultipleChoice",
    "PTuning",
    "PTuningV2",
    "PrefixEncoder",
    "PromptEncoder",
    "PromptTuner",
    "PromptTuning",
    "Prompts",
    "SoftPrompt",
    "SpanQA",
    "Tagging",
    "TaskSpec",
    "Template",
    "Verbalizer",
    "describe",
    "task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(import_module(f"ptune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
