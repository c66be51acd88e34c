"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): only the biases of the backbone are trained."""

from typing import final

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.tuning.companions import biases
from ptune.tuning.tuner import PromptTuner


@final
class BitFit(PromptTuner):
    """Train the backbone's biases, those of its normalisations included, and the head.

    Args:
        lr: Peak learning rate of the biases.
    """

    def __init__(self, lr: float = 1e-3, **common) -> None:
        super().__init__(lr=lr, **common)
        self.require_fp32()

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone without biases (Llama, T5)."""
        if not self.backbone_parameters(backbone):
            raise InputError(f"{self.spec.who} has no biases to train; choose another backbone or method.")

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """All biases."""
        return biases(backbone)

    def prompts(self, batch: Batch) -> None:
        """No prompts."""
        return None
