"""A compiled run reaches what a plain one does, compiles once for all lengths, and says whether it pays."""

import json
from functools import partial

import pytest
import runs
import torch

OPTIONS = {"compile": True, "trainer__max_epochs": 1}
CERTAIN = {"trainer__max_epochs": 1, "model__prefix_dropout": 0, "model__head_dropout": 0}


def test_without_a_compiler_it_is_one_sentence_and_nothing_is_left(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no g++\nand so on")

    monkeypatch.setattr(torch, "compile", fail)
    code, _, err = runs.call(runs.line(tmp_path / "run", **OPTIONS))
    assert code == 2
    assert "option --compile true: torch.compile does not work on this machine (no g++); install a C++" in err
    assert not (tmp_path / "run").exists()


def test_with_layers_that_are_computed_once_it_is_one_sentence(tmp_path):
    code, _, err = runs.call(runs.line(tmp_path / "run", "LinearProbe", "toy/single", **OPTIONS, cache_frozen="auto"))
    assert code == 2
    assert "option --compile true: the forward pass reads from disk what --cache_frozen has computed" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_is_the_plain_run_and_there_are_two_graphs_for_all_lengths(tmp_path, monkeypatch):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    path = runs.data(train=30)
    for name, chosen in (("plain", {}), ("compiled", {"compile": True})):
        runs.fit(tmp_path / name, path=path, trainer__max_epochs=1, data__batch_size=5, **chosen)
    assert len(graphs) == 3, "one to train, one to evaluate, and one on which the compiler is tried"
    plain, compiled = (runs.outcome(tmp_path / name) for name in ("plain", "compiled"))
    for logged, expected in zip(compiled["rows"], plain["rows"], strict=True):
        assert logged == pytest.approx(expected, abs=1e-5)
    assert compiled["metrics"]["test"] == pytest.approx(plain["metrics"]["test"], abs=1e-5)
    result = json.loads((tmp_path / "compiled" / "result.json").read_text())
    assert result["compile_seconds"] > 0
    assert result["compiled_step"] > 0
    assert "compile_pays_after" in result


@pytest.mark.deep
def test_kernels_train_as_a_plain_run(tmp_path):
    torch.compiler.reset()
    plain = runs.fit(tmp_path / "plain", **CERTAIN)
    compiled = runs.fit(tmp_path / "compiled", **CERTAIN, compile=True)
    assert compiled["metrics"]["validation"] == pytest.approx(plain["metrics"]["validation"], abs=1e-4)
