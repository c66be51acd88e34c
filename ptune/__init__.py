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
    from ptune.data.multi_label import MultiLabel
    from ptune.data.multi_task import MultiTask
    from ptune.data.qa import SpanQA
    from ptune.data.tagging import Tagging
    from ptune.errors import InputError
    from ptune.methods.apt import APT
    from ptune.methods.bitfit import BitFit
    from ptune.methods.dept import DePT
    from ptune.methods.fine_tuning import FineTuning
    from ptune.methods.late_prompt_tuning import LatePromptTuning
    from ptune.methods.linear_probe import LinearProbe
    from ptune.methods.lora import PEFT, LoRA
    from ptune.methods.manual import ManualPrompt
    from ptune.methods.multitask_prompt import MultitaskPrompt
    from ptune.methods.p_tuning import PromptEncoder, PTuning
    from ptune.methods.p_tuning_v2 import PTuningV2
    from ptune.methods.prefix_memory import PrefixMemory
    from ptune.methods.prompt_tuning import PromptTuning, SoftPrompt
    from ptune.methods.residual_prompt_tuning import ResidualPromptTuning
    from ptune.prompts import Prompts
    from ptune.serving.bank import PromptBank
    from ptune.serving.loading import load
    from ptune.serving.predictor import Predictor
    from ptune.tasks import task
    from ptune.tasks.spec import HeadSpec, TaskSpec
    from ptune.tasks.templates import Template, Verbalizer
    from ptune.tuning.prefix import PrefixEncoder
    from ptune.tuning.tuner import PromptTuner

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "ptune.backbone",
    "HeadSpec": "ptune.tasks.spec",
    "InputError": "ptune.errors",
    "PrefixEncoder": "ptune.tuning.prefix",
    "PromptEncoder": "ptune.methods.p_tuning",
    "PromptTuner": "ptune.tuning.tuner",
    "Predictor": "ptune.serving.predictor",
    "PromptBank": "ptune.serving.bank",
    "Prompts": "ptune.prompts",
    "SoftPrompt": "ptune.methods.prompt_tuning",
    "TaskSpec": "ptune.tasks.spec",
    "Template": "ptune.tasks.templates",
    "Verbalizer": "ptune.tasks.templates",
    "describe": "ptune.backbone.pretrained",
    "load": "ptune.serving.loading",
    "task": "ptune.tasks",
}
"""Where the public names lie, beside methods and data modules, which are found in their packages."""


def _homes() -> dict[str, str]:
    from ptune.run import catalog  # reads the sources of methods and data modules: only when a name is asked for

    found = {entry.name: entry.module for group in catalog.GROUPS for entry in catalog.classes(group).values()}
    return found | _HOMES


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("__") or name not in (homes := _homes()):
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)


def __dir__() -> list[str]:
    return sorted(_homes())
