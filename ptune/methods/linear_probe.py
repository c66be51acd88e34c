"""Linear probe: the backbone as a fixed feature extractor (Devlin et al. 2019, section 5.3; Alain & Bengio 2016)."""

from typing import final

from ptune.errors import InputError
from ptune.heads import Batch
from ptune.tuning.tuner import PromptTuner


@final
class LinearProbe(PromptTuner):
    """Train the head alone.

    Args:
        lr: Peak learning rate of the head.
    """

    def __init__(self, lr: float = 1e-3, **common) -> None:
        super().__init__(lr=lr, **common)
        if self.head.lm:
            raise InputError(
                "--model LinearProbe would train nothing: a template is read with the language model's own head; use "
                "ManualPrompt, or leave --data.template out."
            )

    @property
    def first_layer(self) -> int:
        """None of the layers."""
        return self.spec.layers

    def prompts(self, batch: Batch) -> None:
        """No prompts."""
        return None
