"""A training step asks the device for no number, but where it logs: on a GPU the host would wait for each."""

import traceback
from collections import Counter

import pytest
import runs
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionMaskInterface

ON_THE_HOST = (
    "torch/optim/",  # AdamW counts its steps in tensors of the CPU
    "ptune/run/finite.py",  # of a GPU it reads what the step before has left on the CPU
    "transformers/masking_utils.py",  # of a GPU's tensor it does not ask: see below
    "lightning/pytorch/utilities/data.py",
)
EVERY = 3
"""Steps from one logged step to the next."""


class Reads(TorchDispatchMode):
    """Counts where numbers are read out of tensors, or shapes depend on them."""

    def __init__(self):
        super().__init__()
        self.places = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            stack = [frame.filename for frame in traceback.extract_stack()[:-1]]
            if not any(part in name for name in stack for part in ON_THE_HOST):
                own = [name for name in stack if "/torch/" not in name and "contextlib" not in name]
                self.places[own[-1]] += 1
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Counts in each step, from the batch before the device to the end of the step."""

    found: list[Counter]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.reads = Reads()
        self.reads.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.reads.__exit__(None, None, None)
        type(self).found.append(self.reads.places)


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("PTuningV2", "toy/pair", {}),
        ("PromptTuning", "toy/tagging", {}),
        ("FineTuning", "toy/qa", {}),
    ],
)
def test_a_step_reads_no_number_but_where_it_logs(tmp_path, method, name, options, monkeypatch):
    monkeypatch.setattr(TQDMProgressBar, "disable", lambda bar: None)  # as in a terminal
    Watch.found = []
    path = runs.data(name, train=30)
    words = runs.line(tmp_path / "run", method, name, path, trainer__max_epochs=1, data__batch_size=5, **options)
    words += ["--trainer.log_every_n_steps", EVERY, "--trainer.enable_progress_bar", "true"]
    code, _, err = runs.call([*words, f"--trainer.callbacks+={__name__}.Watch"])
    assert code == 0, err
    last = len(Watch.found)
    assert last > EVERY
    for step, places in enumerate(Watch.found, start=1):
        assert not places or step % EVERY == 0 or step == last, (step, places)
    assert Watch.found[EVERY - 1], "what a logged step reads is counted"


@pytest.mark.parametrize("causal", [False, True])
def test_the_mask_of_another_device_is_made_without_looking_into_it(causal):
    make, padding = AttentionMaskInterface()["ptune_sdpa"], torch.ones(2, 5, dtype=torch.bool)
    sizes = {"batch_size": 2, "q_length": 5, "kv_length": 5, "dtype": torch.float32}
    sizes |= {"allow_is_causal_skip": causal, "allow_is_bidirectional_skip": not causal}
    assert make(**sizes, attention_mask=padding, device="cpu") is None
    padding[0, 4:] = False
    assert make(**sizes, attention_mask=padding, device="cpu").shape == (2, 1, 5, 5)
    assert make(**sizes, attention_mask=padding.to("meta"), device="meta").shape == (2, 1, 5, 5)
