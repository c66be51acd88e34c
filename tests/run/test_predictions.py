"""Predictions of a run: the order of a split's rows is found once for each evaluation."""

import runs

from ptune.data.loader import EvalSampler


def test_the_rows_of_a_split_are_sorted_once_for_its_predictions_and_not_for_every_batch(tmp_path, monkeypatch):
    calls, order = [], EvalSampler.order
    monkeypatch.setattr(EvalSampler, "order", lambda self: calls.append(len(self)) or order(self))
    path = runs.data(train=4, validation=7, test=5)
    runs.fit(tmp_path / "run", path=path, trainer__max_epochs=1, data__batch_size=1)
    # The loader asks for it in each of the three evaluations, the predictions in the two of the best checkpoint.
    assert sorted(calls) == [5, 5, 7, 7, 7]
