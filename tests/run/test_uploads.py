"""What W&B is given when a run ends: pictures and tables of mistakes, samples, the prompt and what it is."""

import types

import pytest
from lightning.pytorch.loggers import WandbLogger

from ptune.heads.mistakes import Mistakes
from ptune.run import uploads
from ptune.run.predictions import Predictions

wandb = pytest.importorskip("wandb")
LABELS = ("no", "yes")


@pytest.fixture
def run(tmp_path):
    """A run of a task with these labels, its predictions for two splits, and a file of prompts."""
    spec = types.SimpleNamespace(labels=LABELS, kind="classify")
    data = types.SimpleNamespace(
        task=types.SimpleNamespace(name="toy/pair"),
        head=spec,
        chosen_on="dev",
        splits=["dev", "test"],
        texts_of=lambda split, numbers: [{"sentence": f"{split} {number}"} for number in numbers],
    )
    kept = Predictions(data)
    for split in data.splits:
        kept.rows[split] = {
            i: {"answer": LABELS[i % 2], "gold": "no", "score": 0.5, "right": i % 2 == 0} for i in range(6)
        }
    (tmp_path / "prompts.safetensors").write_bytes(b"tensors")
    model = types.SimpleNamespace(trains=True)
    identity = types.SimpleNamespace(seed=11)
    return types.SimpleNamespace(data=data, predictions=kept, identity=identity, directory=tmp_path, model=model)


RESULT = {"task": "toy/pair", "method": "PTuningV2", "backbone": "bert", "fingerprint": "f", "seed": 11, "hash": "012"}
RESULT |= {"best_epoch": 2, "trained_parameters": 7, "chosen_on": "dev", "monitor": "accuracy", "seconds": 1.5}
RESULT |= {"metrics": {"dev": {"accuracy": 0.5, "loss": 1.0}, "test": {"accuracy": 0.25}}}


def test_the_split_that_chooses_the_checkpoint_is_val_and_its_metric_the_score(run):
    final = uploads.final(run, RESULT)
    metrics = {"final/val/accuracy": 0.5, "final/val/loss": 1.0, "final/test/accuracy": 0.25}
    numbers = {"final/seed": 11, "final/best_epoch": 2, "final/trained_parameters": 7, "final/seconds": 1.5}
    assert final == {**metrics, **numbers, "final/score": 0.5}


def test_confusions_are_a_picture_and_samples_a_table(run):
    found = uploads.tables(run, samples=4)
    assert found.keys() == {"errors/val", "samples/val", "errors/test", "samples/test"}
    picture = found["errors/test"]
    assert picture.spec.spec_name == "wandb/confusion_matrix/v1"
    assert picture.table.columns == list(uploads.CONFUSION.values())
    assert sorted(map(tuple, picture.table.data)) == [("no", "no", 3), ("no", "yes", 3)]
    table = found["samples/test"]
    assert table.columns == ["row", "sentence", "gold", "answer", "score", "right"]
    assert [row[1] for row in table.data] == [f"test {row[0]}" for row in table.data]
    assert [row[-1] for row in table.data].count(False) == 2


def test_no_text_of_the_data_is_uploaded_where_no_samples_are_asked_for(run):
    assert uploads.tables(run, samples=0).keys() == {"errors/val", "errors/test"}


def test_there_are_no_tables_without_predictions(run):
    run.predictions = None
    assert uploads.tables(run, samples=4) == {}


@pytest.mark.parametrize(
    ("kind", "labels", "drawn"),
    [("confusion", 2, True), ("confusion", 0, False), ("confusion", 151, False), ("spans", 2, False)],
)
def test_a_matrix_is_drawn_of_a_few_labels_alone(kind, labels, drawn):
    found = uploads.picture(Mistakes(kind, ("gold", "answer", "count"), [("a", "b", 1)]), "title", labels)
    assert isinstance(found, wandb.Table) != drawn


def test_numbers_are_drawn_with_their_errors(run):
    run.data.head.kind, run.data.head.labels = "regress", ()
    for split in run.data.splits:
        run.predictions.rows[split] = {
            i: {"answer": i + 0.5, "gold": float(i), "score": 0, "right": None} for i in range(9)
        }
    found = uploads.tables(run, samples=4)
    assert found.keys() == {
        f"{what}/{split}" for what in ("errors", "residuals", "samples") for split in ("val", "test")
    }
    assert found["residuals/val"].table.data == [[float(i), 0.5] for i in range(9)]
    assert found["errors/val"].columns[:2] == ["gold from", "gold to"]


def test_the_prompt_is_an_artifact_that_says_what_it_is(run):
    artifact = uploads.prompt(run, RESULT, "toy/pair/PTuningV2/11")
    assert (artifact.name, artifact.type) == ("toy-pair-PTuningV2-11", "prompt")
    said = {"task": "toy/pair", "method": "PTuningV2", "backbone": "bert", "fingerprint": "f", "score": 0.5}
    assert said.items() <= artifact.metadata.items()
    assert artifact.manifest.entries.keys() == {"prompts.safetensors"}


def test_what_is_not_trained_or_too_large_is_no_artifact(run, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST", 3)
    assert uploads.prompt(run, RESULT, "x") is None
    monkeypatch.undo()
    run.model.trains = False
    assert uploads.prompt(run, RESULT, "x") is None


def test_an_error_of_wandb_costs_a_note_and_not_the_run(run, capsys):
    def refuse(*_, **__):
        raise wandb.errors.CommError("the server is gone")

    experiment = types.SimpleNamespace(summary={}, log=refuse, name="x", dir=str(run.directory / "wandb" / "files"))
    run.trainer = types.SimpleNamespace(loggers=[WandbLogger(experiment=experiment)])
    uploads.upload(run, RESULT, 4)
    err = capsys.readouterr().err
    assert "note: W&B has not got all of the run (the server is gone); upload it with: wandb sync" in err
    assert err.strip().endswith(str(run.directory / "wandb"))
