"""Worker processes take cells one by one, and tell how each ended."""

import gc
import json
import weakref

import fakes
import pytest

from ptune.research import local
from ptune.research.attempt import End, attempt
from ptune.research.cells import cell


@pytest.fixture
def of_seed(tmp_path):
    def of_seed(seed):
        return cell({"seed": str(seed)}, [{"method": "LinearProbe", "task": "rte", "seed": seed}], tmp_path / str(seed))

    return of_seed


@pytest.mark.slow
def test_workers_take_the_next_cell_when_they_are_free_and_survive_what_a_cell_does(of_seed):
    asked, ended = [], []

    def search():
        """Each cell but the first is chosen by what ended before."""
        for seed in (1, 13, 9, 2):
            assert len(ended) == len(asked)
            asked.append(seed)
            yield of_seed(seed)

    events = []
    for event in local.work(search(), fakes.ends, workers=1, cpus=1, gpus=1):
        events.append(event)
        if isinstance(event, End):
            ended.append(event)
    assert [isinstance(event, End) for event in events] == [False, True] * 4
    assert [end.error for end in ended] == [
        "",
        "13 is no seed for a grid.",
        "its process ended by signal SIGKILL; start the grid again to go on with it.",
        "",
    ]
    assert [end.result and end.result["seed"] for end in ended] == [1, None, None, 2]
    first, last = ended[0].result, ended[3].result
    assert first["pid"] != last["pid"], "a worker that died is replaced"
    words = [
        "--trainer.enable_progress_bar",
        "false",
        *of_seed(1).words,
        "--run_dir",
        str(of_seed(1).run_dir),
        "--ckpt_path",
        "auto",
    ]
    assert (first["main"], first["argv"]) == ("ptune.__main__", ["ptune", "fit", *words]), (
        "so its processes are started"
    )
    for end in ended[1:3]:
        assert json.loads((end.cell.run_dir / "failed.json").read_text())["error"] == end.error
    assert not (of_seed(1).run_dir / "failed.json").exists()


def test_what_a_cell_has_made_is_freed_behind_it(of_seed):
    class Model:
        def __init__(self):
            self.trainer = self

    def run(words):
        made.append(weakref.ref(Model()))
        if len(made) == 2:
            raise ValueError(words)

    made = []
    gc.disable()
    try:
        for seed in (1, 2):
            attempt(of_seed(seed), run)
        assert [model() for model in made] == [None, None]
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_cell_that_has_its_result_meanwhile_is_not_run_again(of_seed):
    done = of_seed(13)
    done.run_dir.mkdir()
    (done.run_dir / "cell.json").write_text(json.dumps({"digest": done.digest}))
    (done.run_dir / "result.json").write_text('{"seed": 13}')
    assert attempt(done, fakes.ends) == End(done, "", {"seed": 13})


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        (1, [[0], [1], [2]]),
        (0.5, [[0], [0], [1]]),
        (0.4, [[0], [0], [1]]),
        (2, [[0, 1], [2, 3], [4, 5]]),
        (0, [[], [], []]),
    ],
)
def test_each_worker_has_its_share_of_the_gpus(gpus, found):
    assert [list(local.devices(place, gpus)) for place in range(3)] == found
