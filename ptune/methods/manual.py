"""Direct use of a language model without training (Schick & Schütze 2021; Brown et al. 2020), through a template."""

from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ptune.backbone.attention import Attention
from ptune.backbone.pretrained import MINILM, Dtype
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.tasks.spec import HeadSpec
from ptune.tuning.recipe import is_own
from ptune.tuning.tuner import PromptTuner


@final
class ManualPrompt(PromptTuner):
    """Read the answer from the language model, zero-shot or after the data module's `demonstrations`.

    Args:
        backbone: Hub id, local folder, or `package:NAME/PATH` of a masked or causal language model.
        head: Form and labels of the task's head; the data module's `head`, linked on the command line.
        calibrate: Divide each label's probability by the one it has where the template is filled with no content
            (contextual calibration, Zhao et al. 2021, section 5).
        attention: Attention function; `flash` needs a GPU, 16 bits, and torch 2.10 or the package flash-attn.
        backbone_dtype: `fp32`, or `bf16`, `int8` or `int4` (bitsandbytes), which take less memory.
    """

    trains: ClassVar[bool] = False
    prior: Tensor | None

    def __init__(
        self,
        backbone: str = MINILM,
        head: HeadSpec | None = None,
        calibrate: bool = False,
        attention: Attention = "sdpa",
        backbone_dtype: Dtype = "fp32",
    ) -> None:
        super().__init__(backbone=backbone, head=head, attention=attention, backbone_dtype=backbone_dtype)
        if not self.head.lm:
            raise InputError("--model ManualPrompt reads a template: add --data.template task, or one of your own.")
        if calibrate and self.head_spec.kind != "cloze":
            raise InputError("--model.calibrate true: only words that stand for labels have a prior; leave it out.")
        self.register_buffer("prior", None, persistent=False)  # moves with the model

    def prompts(self, batch: Batch) -> None:
        """No prompts."""
        return None

    def forward(self, batch: Batch) -> Tensor:
        """Scores of a batch, in the form of the task's head; with `calibrate`, log-probabilities minus the prior."""
        scores = super().forward(batch)
        return scores if self.prior is None else scores.log_softmax(-1) - self.prior

    @torch.no_grad()
    def check_data(self, data: Any) -> None:
        """Compute the prior: the logarithm of the labels' probabilities, "c", averaged over the fillings."""
        super().check_data(data)
        if self.hparams["calibrate"] and is_own(data):
            self.prior = None
            batch = {name: value.to(self.device) for name, value in data.content_free.items()}
            self.prior = self.eval()(batch).softmax(-1).mean(0).log()

    def on_validation_start(self) -> None:
        """Compute the prior for `Trainer.validate`; the command line has computed it before."""
        if self.prior is None:
            self.check_data(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_test_start(self) -> None:
        """Compute the prior for `Trainer.test`."""
        self.on_validation_start()

    def on_predict_start(self) -> None:
        """Compute the prior for `Trainer.predict`."""
        self.on_validation_start()
