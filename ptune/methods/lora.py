"""Adapters as baselines, by the library PEFT: LoRA (Hu et al. 2022), and any other adapter that PEFT can inject.

No adapter is implemented here: `peft.inject_adapter_in_model` puts it into the backbone. Needs `ptune[peft]`.
"""

import logging
import warnings
from abc import abstractmethod
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError, nearest, require
from ptune.heads import Batch
from ptune.tuning.checks import check_positive, check_size
from ptune.tuning.tuner import PromptTuner

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


class Adapted(PromptTuner):
    """Train the adapter that PEFT injects into the backbone, and the head. A subclass gives its `config`."""

    target_argument: ClassVar[str]
    """Argument that names the layers to adapt, for error messages."""
    adapters: tuple[str, ...] = ()
    """Names of the injected tensors in the backbone."""

    @abstractmethod
    def config(self) -> "PeftConfig":
        """PEFT's configuration of the adapter. Raises InputError for a mistake in it."""

    def prepare(self, backbone: Backbone) -> None:
        """Inject the adapter. Raises InputError with PEFT's reason where it does not fit this backbone."""
        config = self.config()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fan_in_fan_out")  # it is set for GPT-2's layers as they need it
            try:
                peft_library().inject_adapter_in_model(config, backbone.model)
            except ValueError as error:
                layers = {name.split(".")[-1] for name, m in backbone.model.named_modules() if isinstance(m, nn.Linear)}
                raise InputError(
                    f"{self.target_argument}: {type(config).__name__} cannot be injected into "
                    f"{self.hparams['backbone']!r} ({str(error).splitlines()[0].rstrip('.')}); "
                    f"its linear layers are {', '.join(sorted(layers))}."
                ) from error
        named = backbone.model.named_parameters()
        self.adapters = tuple(f"model.{name}" for name, value in named if value.requires_grad)

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """The injected tensors."""
        named = dict(backbone.named_parameters())
        return {name: named[name] for name in self.adapters}

    def prompts(self, batch: Batch) -> None:
        """No prompts."""
        return None


@final
class LoRA(Adapted):
    """Train low-rank updates `alpha / rank * B A` of the backbone's linear layers, and the head.

    Args:
        rank: Rank of A and B.
        alpha: Numerator of the scale.
        dropout: Dropout probability before A.
        targets: Ends of the names of the layers, e.g. [query, value]; `auto` takes PEFT's for the model type (the
            paper's query and value), `all-linear` every linear layer.
    """

    target_argument = "targets"
    stored_arguments = ("rank", "alpha", "targets")

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 8.0,
        dropout: float = 0.0,
        targets: str | list[str] = "auto",
        lr: float = 5e-4,
        **common,
    ) -> None:
        super().__init__(lr=lr, **common)
        check_size("rank", rank)
        check_positive("alpha", alpha)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout: {dropout} must be at least 0 and below 1.")
        if isinstance(targets, str) and targets not in ("auto", "all-linear"):
            raise InputError(f"targets: {targets!r} is not `auto`, `all-linear`, or a list such as [query, value].")
        self.config()

    def config(self) -> "PeftConfig":
        """LoraConfig."""
        p = self.hparams
        targets = None if p["targets"] == "auto" else p["targets"]
        options = {"r": p["rank"], "lora_alpha": p["alpha"], "lora_dropout": p["dropout"], "target_modules": targets}
        return configure("LoraConfig", options)


@final
class PEFT(Adapted):
    """Train any other adapter that PEFT can inject, and the head.

    Args:
        config: Name of PEFT's configuration class, e.g. IA3Config.
        options: Its arguments, e.g. {target_modules: [key, value, output.dense], feedforward_modules: [output.dense]}.
    """

    target_argument = "options.target_modules"
    stored_arguments = ("config", "options")

    def __init__(
        self, config: str = "IA3Config", options: dict[str, Any] | None = None, lr: float = 1e-3, **common
    ) -> None:
        super().__init__(lr=lr, **common)
        self.config()

    def config(self) -> "PeftConfig":
        """The configuration of the class that was named."""
        return configure(self.hparams["config"], self.hparams["options"] or {})


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
    try:
        return classes[name](**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"options: {name} refuses {options} ({str(error).splitlines()[0]}).") from error
