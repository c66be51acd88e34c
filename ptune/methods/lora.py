"""Adapters as baselines, by the library PEFT: LoRA (Hu et al. 2022), and any other adapter that PEFT can inject.

No adapter is implemented here: `peft.inject_adapter_in_model` puts it into the backbone. Needs `ptune[peft]`.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.tuning.checks import check_positive, check_size
from ptune.tuning.injected import configure, inject
from ptune.tuning.tuner import PromptTuner

if TYPE_CHECKING:
    from peft import PeftConfig


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
        self.adapters = inject(self.config(), backbone, self.target_argument)

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
