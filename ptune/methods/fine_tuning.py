"""Fine-tuning (Devlin et al. 2019, arXiv:1810.04805, section 3.2): the whole backbone and the head are trained."""

from typing import final

from torch import nn

from ptune.backbone import Backbone
from ptune.heads import Batch
from ptune.tuning.tuner import PromptTuner


@final
class FineTuning(PromptTuner):
    """Train the backbone and the head.

    Args:
        lr: Peak learning rate of the backbone.
        backbone_dropout: Keep the checkpoint's own dropout, as BERT does.
    """

    def __init__(self, lr: float = 2e-5, backbone_dropout: bool = True, **common) -> None:
        super().__init__(lr=lr, backbone_dropout=backbone_dropout, **common)
        self.require_fp32()

    def prompts(self, batch: Batch) -> None:
        """No prompts."""
        return None

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """All tensors of the backbone."""
        return dict(backbone.named_parameters())
