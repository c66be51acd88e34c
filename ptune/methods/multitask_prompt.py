"""Multitask prompt tuning (Wang et al. 2023, MPT, arXiv:2303.02861): tasks share a prompt, masked by rank 1 for each.

The prompt of task k is P ∘ (u_k v_kᵀ), the paper's prompt decomposition. Left out is the distillation from prompts of
the single tasks, which the paper trains it with; the loss is that of the tasks alone. u and v start at 1, so that all
tasks start from the shared prompt.
"""

from inspect import signature
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.heads import Batch
from ptune.heads.by_task import ByTask, parts
from ptune.methods.prompt_tuning import PromptTuning, SoftPrompt, common_words, soft_prompt
from ptune.prompts import Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.reparameterized import Reparameterized
from ptune.tuning.tuner import PromptTuner


@final
class MaskedPrompt(Reparameterized):
    """p vectors of width e, "p e", which m tasks share, times a mask of rank 1 for each task.

    Args:
        length: p, prompt length in vectors.
        width: e, width of the word embeddings.
        tasks: m, number of tasks.
    """

    def __init__(self, length: int, width: int, tasks: int) -> None:
        super().__init__()
        self.vectors = SoftPrompt(length, width).vectors
        self.of_vector = nn.Parameter(torch.ones(tasks, length))
        self.of_dimension = nn.Parameter(torch.ones(tasks, width))

    def forward(self, task: Int[Tensor, " b"]) -> Float[Tensor, "b p e"]:
        """The vectors for texts of these tasks."""
        return self.vectors * self.of_vector[task, :, None] * self.of_dimension[task, None]

    @torch.no_grad()
    def of(self, task: int) -> SoftPrompt:
        """The vectors of one task, trainable."""
        return soft_prompt(self(torch.tensor([task], device=self.vectors.device))[0])

    def folded(self) -> nn.Module:
        """The vectors of the task, where there is only one; the masks stay where there are several."""
        return self.of(0) if len(self.of_vector) == 1 else self


@final
class MultitaskPrompt(PromptTuner):
    """Train vectors in the input's prompt slots that several tasks share, a mask of rank 1 a task, and the heads.

    With `--data MultiTask`. A run leaves, beside its own `prompts.safetensors`, one file for each task in `prompts/`,
    which is that of a PromptTuning of the task alone: `ptune.load` takes it, and `init: run:FILE` starts from it.

    Args:
        length: Prompt length p, slots of the input.
    """

    prompt: MaskedPrompt | SoftPrompt
    stored_arguments = ("length",)
    slot_argument = "length"

    def __init__(self, length: int = 20, **common) -> None:
        super().__init__(**common)
        check_size("length", length)
        self.several = self.head_spec.kind == ByTask.kind
        tasks = len(parts(self.head_spec)) if self.several else 1
        self.prompt = MaskedPrompt(length, self.spec.embedding_width, tasks)

    @torch.no_grad()
    def prepare(self, backbone: Backbone) -> None:
        """Start from embeddings of common words, as PromptTuning."""
        if isinstance(self.prompt, MaskedPrompt):
            self.prompt.vectors.copy_(common_words(backbone, self.hparams["length"]))

    def prompts(self, batch: Batch) -> Prompts:
        """The vectors of each row's task, for the slots of its text."""
        if isinstance(self.prompt, SoftPrompt):
            return Prompts(embeds=self.prompt())
        task = batch["group"] if self.several else torch.zeros(1, dtype=torch.long, device=self.device)
        return Prompts(embeds=self.prompt(task))

    def save_parts(self, folder: Path) -> None:
        """Write the prompt and the head of each task, folded, as a file of PromptTuning."""
        if not self.several:
            return
        folder.mkdir(exist_ok=True)
        first = 0
        for task, spec in enumerate(parts(self.head_spec)):
            last = first + len(spec.labels)
            model = self._of(task)
            for name, value in model.head.named_parameters():
                value.data.copy_(self.head.get_parameter(name)[first:last])
            model.save_prompts(folder / f"{spec.task.replace('/', '-')}.safetensors")
            first = last

    def _of(self, task: int) -> PromptTuning:
        """A model of one task alone, over the same backbone, with a new head."""
        assert isinstance(self.prompt, MaskedPrompt)
        shared = {name: self.hparams[name] for name in signature(PromptTuner).parameters}
        own = {"length": self.hparams["length"], "init": "random", "head": parts(self.head_spec)[task]}
        model = PromptTuning(**shared | own)
        model.backbone, model.prompt = self.backbone, self.prompt.of(task)
        model.recipe = self.recipe["arguments"]["parts"][task]
        model._trainer = self._trainer  # for the precision that is saved
        return model
