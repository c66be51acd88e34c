"""Adapters that the library PEFT injects into a backbone. Needs `ptune[peft]`."""

import logging
import warnings
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError, first_line, nearest, require

if TYPE_CHECKING:
    from peft import PeftConfig

OURS = {"PrefixTuningConfig": "PTuningV2", "PromptTuningConfig": "PromptTuning", "PromptEncoderConfig": "PTuning"}
"""PEFT's configurations of prompts, which cannot be injected, and the methods to use instead."""
UNFIT = {
    "AdaLoraConfig": "needs a call after each step, which reallocates its ranks",
    "PolyConfig": "needs the number of a task with each text",
    "XLoraConfig": "needs adapters that were trained before",
}
"""PEFT's adapters that need more than tensors in the model, and what they need."""


def peft_library() -> ModuleType:
    """The package peft; InputError where it is not installed.

    PEFT imports bitsandbytes, which warns about kernels that it could not download. They concern no adapter here, so
    that logger shows errors only.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    return require("peft", "peft")


def configure(name: str, options: dict[str, Any]) -> "PeftConfig":
    """PEFT's configuration class of this name with these options; InputError where there is none or they do not fit."""
    peft = peft_library()
    classes = {cls.__name__: cls for cls in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.values()}
    if name not in classes:
        raise InputError(f"config: PEFT has no {name!r}; {nearest(name, classes)}")
    if issubclass(classes[name], peft.PromptLearningConfig):
        ours = OURS.get(name, "PTuningV2, PTuning or PromptTuning")
        raise InputError(f"config: {name} is a prompt, which cannot be injected; use --model {ours}.")
    if name in UNFIT:
        raise InputError(f"config: {name} {UNFIT[name]}, which ptune does not do; choose another, such as IA3Config.")
    known = [field.name for field in fields(classes[name])]
    for key in options:
        if key not in known:
            raise InputError(f"options: {name} has no {key!r}; {nearest(key, known)}")
    if str(start := options.get("init_lora_weights")).startswith("pissa_niter"):
        raise InputError(
            f"options: init_lora_weights: {start!r} changes the backbone by numbers that it draws and no file of the "
            "run holds; use 'pissa'."
        )
    try:
        return classes[name](**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"options: {name} refuses {options} ({str(error).splitlines()[0]}).") from error


def inject(config: "PeftConfig", backbone: Backbone, argument: str) -> tuple[str, ...]:
    """Inject an adapter; the names of its tensors in the backbone.

    Raises InputError with PEFT's reason where it does not fit, which names the `argument` that chose the layers.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fan_in_fan_out")  # it is set for GPT-2's layers as they need it
        try:
            peft_library().inject_adapter_in_model(config, backbone.model)
        except Exception as error:  # of any kind: PEFT does not check what its options hold
            layers = {name.split(".")[-1] for name, m in backbone.model.named_modules() if isinstance(m, nn.Linear)}
            raise InputError(
                f"{argument}: {type(config).__name__} cannot be injected into {backbone.spec.name!r} "
                f"({first_line(error)}); its linear layers are {', '.join(sorted(layers))}."
            ) from error
    return tuple(f"model.{name}" for name, value in backbone.model.named_parameters() if value.requires_grad)
