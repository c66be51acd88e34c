import os

import lightning as L
import pytest
import torch

from ptune.data import loader
from ptune.data.loader import BucketSampler, EvalSampler, Loader

LENGTHS = [(7 * i) % 41 + 3 for i in range(103)]


def sampler(kind, processes, rank, batch_size, monkeypatch, lengths=LENGTHS):
    monkeypatch.setattr(loader, "world", lambda: (processes, rank))
    return kind(lengths, batch_size)


def batches(rows, size):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def test_order_is_a_pure_function_of_seed_and_epoch(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    one, two = (BucketSampler(LENGTHS, 4) for _ in range(2))
    assert list(one) == list(one) == list(two)
    first = list(one)
    one.set_epoch(1)
    assert list(one) != first
    assert sorted(one) == sorted(first) == list(range(len(LENGTHS)))
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert list(BucketSampler(LENGTHS, 4)) != first


@pytest.mark.parametrize("rows", [103, 104, 8, 7, 1])
def test_global_batches_do_not_depend_on_the_number_of_processes(rows, monkeypatch):
    lengths = LENGTHS[:rows] if rows <= 103 else [*LENGTHS, 5]
    whole = batches(list(sampler(BucketSampler, 1, 0, 8, monkeypatch, lengths)), 8)
    ranks = [list(sampler(BucketSampler, 2, rank, 4, monkeypatch, lengths)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(sampler(BucketSampler, 2, 0, 4, monkeypatch, lengths)) == rows // 2
    parts = [sorted(a + b) for a, b in zip(*(batches(rank, 4) for rank in ranks), strict=True)]
    full = [sorted(batch) for batch in whole if len(batch) == 8]
    assert parts[: len(full)] == full
    rest = parts[len(full) :]  # the last, short batch is cut to a multiple of the processes
    assert sum(map(len, rest)) == rows % 8 // 2 * 2
    assert all(row in whole[-1] for batch in rest for row in batch)


def test_batches_have_similar_lengths(monkeypatch):
    lengths = torch.randint(5, 200, (5000,), generator=torch.Generator().manual_seed(0)).tolist()
    groups = batches(list(BucketSampler(lengths, 16)), 16)
    padded = sum(max(lengths[i] for i in group) * len(group) for group in groups)
    assert padded < 1.1 * sum(lengths)
    longest = [max(lengths[i] for i in group) for group in groups[:50]]
    assert longest != sorted(longest)  # and not from short to long


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_counts_each_row_once(processes, monkeypatch):
    ranks = [sampler(EvalSampler, processes, rank, 4, monkeypatch) for rank in range(processes)]
    assert sorted(row for rank in ranks for row in rank) == list(range(len(LENGTHS)))
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks]
    seen = [LENGTHS[row] for row in ranks[0]]
    assert seen == sorted(seen, reverse=True)


def test_fewer_rows_than_processes_count_equally_and_leave_no_process_without(monkeypatch):
    ranks = [sampler(EvalSampler, 3, rank, 4, monkeypatch, [5, 7]) for rank in range(3)]
    assert [list(rank) for rank in ranks] == [[1, 0]] * 3
    assert [len(rank) for rank in ranks] == [2] * 3


class Rows(torch.utils.data.Dataset):
    """Remembers which rows were fetched."""

    def __init__(self, n=22):
        self.n = n
        self.fetched = []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.fetched.append(i)
        return torch.tensor([float(i)])


def make(rows=None, batch_size=4, **options):
    rows = rows or Rows()
    return Loader(rows, batch_size, BucketSampler([1] * len(rows), batch_size), **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 3, 5])
def test_resume_skips_what_is_done_without_fetching_it(done, workers):
    whole = make()
    whole.sampler.set_epoch(3)
    expected = [batch.flatten().tolist() for batch in whole]
    first = make()
    first.sampler.set_epoch(3)
    iterator = iter(first)
    for _ in range(done):
        next(iterator)
    state = first.state_dict()
    assert state == {"epoch": 3, "done": done}
    rows = Rows()
    second = make(rows, num_workers=workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    iterator = iter(second)  # Lightning makes the iterator first and sets the epoch then
    second.sampler.set_epoch(3)
    assert [batch.flatten().tolist() for batch in iterator] == expected[done:]
    if workers == 0:
        assert len(rows.fetched) == sum(map(len, expected[done:]))
    assert second.state_dict() == {"epoch": 3, "done": 6}
    second.sampler.set_epoch(4)
    assert len(list(second)) == len(second) == 6  # the next epoch is whole


def test_resume_at_an_epochs_end_skips_nothing():
    loader = make()
    loader.load_state_dict({"epoch": 3, "done": 5})  # limit_train_batches ended the epoch before the loader did
    loader.sampler.set_epoch(4)
    assert len(list(loader)) == 6


class Recorder(L.LightningModule):
    """Writes down which rows each step saw."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.flatten().tolist()))
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Keep(L.pytorch.callbacks.Checkpoint):
    """A checkpoint after each batch, each validation and each epoch."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, when):
        if not trainer.sanity_checking:
            name = f"{when}-{trainer.current_epoch}-{trainer.global_step}.ckpt"
            trainer.save_checkpoint(self.folder / name, weights_only=False)

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, *_):
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self.save(trainer, "epoch")


def fit(folder=None, resume=None, workers=0, **options):
    model = Recorder()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=folder is not None,
        callbacks=[Keep(folder)] if folder else [],
        **options,
    )
    persistent = {"num_workers": workers, "persistent_workers": workers > 0}
    trainer.fit(model, make(**persistent), make(), ckpt_path=resume, weights_only=False if resume else None)
    return model.seen


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"limit_train_batches": 4}], ids=str)
def test_lightning_resumes_with_the_batches_that_are_left(options, tmp_path):
    whole = fit(tmp_path, **options)
    assert {epoch for epoch, _, _ in whole} == {0, 1, 2}
    epochs = [[rows for e, _, rows in whole if e == epoch] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) > len(whole)
    for checkpoint in checkpoints:
        steps = int(checkpoint.stem.split("-")[-1])
        assert fit(resume=checkpoint, **options) == whole[steps:], checkpoint.stem


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_lightning_resumes_with_workers(tmp_path):
    whole = fit(tmp_path, workers=1)
    for name in ("batch-1-8", "batch-1-12", "validation-1-12", "epoch-1-12"):
        assert fit(resume=tmp_path / f"{name}.ckpt", workers=1) == whole[int(name.split("-")[-1]) :], name


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_lightnings_own_samplers_work():
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    model = Recorder()
    model.predict_step = lambda batch, batch_idx: batch
    trainer = L.Trainer(accelerator="cpu", **quiet)
    rows = Rows()
    assert len(trainer.predict(model, Loader(rows, 4, EvalSampler([1] * len(rows), 4)))) == 6
    L.Trainer(accelerator="cpu", max_epochs=2, overfit_batches=2, limit_val_batches=0, **quiet).fit(model, make())
    assert [batch for _, batch, _ in model.seen] == [0, 1, 0, 1]
    assert model.seen[0][2] == model.seen[2][2]


def test_seed_is_lightnings(monkeypatch):
    L.seed_everything(7, verbose=False)
    assert loader.seed() == 7
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert loader.seed() == 0
    assert "PL_GLOBAL_SEED" not in os.environ
