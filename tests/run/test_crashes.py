"""A run that is killed at any moment, or whose disk is full, goes on to the end of the run that nothing disturbed."""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import processes
import pytest
import runs
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.deep]

OPTIONS = {"trainer__max_epochs": 2, "model__prefix_dropout": 0.3, "model__lr": 0.05, "every_n_steps": 2}
RECORDER = """
import os, shutil, sys
from pathlib import Path

run_dir, states = Path(sys.argv[1]), Path(sys.argv[2])
elsewhere, count, copying = set(), 0, False

def record(event, args):
    global count, copying
    if copying or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link"):
        return
    if event == "open" and not (args[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    path = Path(os.fsdecode(args[0])) if isinstance(args[0], str | bytes | os.PathLike) else None
    if path is None or path.name == ".lock":
        return
    if run_dir not in path.absolute().parents and path.absolute() != run_dir:
        elsewhere.add(str(path))
        return
    copying = True
    if run_dir.exists():
        shutil.copytree(run_dir, states / f"{count:03} {event} {path.name}")
        count += 1
    copying = False

sys.addaudithook(record)
from ptune.fit import main
main(sys.argv[3:])
copying = True
shutil.copytree(run_dir, states / f"{count:03} end")
print("ELSEWHERE", *sorted(elsewhere), sep="\\n")
"""
"""Copies a run directory as a kill would leave it: right before a file in it is opened, linked, renamed or removed."""


def lost(ended: dict, whole: dict) -> int:
    """Lines of the metrics that are missing; there are no others."""
    assert [row for row in ended["rows"] if row not in whole["rows"]] == []
    return len(whole["rows"]) - len(ended["rows"])


def different_in(ended: dict, whole: dict) -> list[str]:
    """In what two outcomes differ, but for one line of the metrics: a checkpoint is written before its step's line."""
    return [key for key in whole if ended[key] != whole[key] and (key != "rows" or lost(ended, whole) > 1)]


def line(run_dir, *words, **options) -> list[str]:
    """The command line of the run that is disturbed."""
    return [*runs.line(run_dir, **OPTIONS | options), *map(str, words)]


def go_on(run_dir: Path) -> None:
    """The same command, from where the run was."""
    code, _, err = runs.call(line(run_dir, "--ckpt_path", "auto"))
    assert code == 0, err


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The states of a run directory, one for each file that a run opens, renames or removes; and its process."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "states").mkdir()
    (folder / "record.py").write_text(RECORDER)
    (folder / "temporary").mkdir()
    words = ["record.py", folder / "run", folder / "states", *line(folder / "run")]
    places = {"TMPDIR": str(folder / "temporary"), "PTUNE_CACHE": str(folder / "cache")}
    done = processes.Command(words, folder, os.environ | places).wait()
    assert done.code == 0, done.err
    return folder, done.out.partition("ELSEWHERE\n")[2].splitlines()


def test_killed_at_any_file_it_writes_a_run_goes_on_to_the_same_end(recorded):
    folder, _ = recorded
    whole = runs.outcome(folder / "run")
    states, wrong = sorted((folder / "states").iterdir()), {}
    assert len(states) > 30
    different = {}  # of moments with the same files, the last one: a temporary file lies there as well
    for state in states:
        files = {name: data for name, data in runs.contents(state).items() if not name.endswith(".tmp")}
        different[tuple(sorted(files.items()))] = state
    assert len(different) > 10
    for state in different.values():
        shutil.rmtree(folder / "run")
        shutil.copytree(state, folder / "run")
        if (state / "result.json").exists():
            ended = runs.outcome(state)
        else:
            go_on(folder / "run")
            ended = runs.outcome(folder / "run")
            assert not list((folder / "run").rglob(".*.tmp")), state.name
        if differ := different_in(ended, whole):
            wrong[state.name] = differ
    assert not wrong


def test_a_run_writes_into_its_directory_and_the_cache_alone(recorded):
    folder, elsewhere = recorded
    cache = str(folder / "cache")
    assert any(path.startswith(cache) for path in elsewhere), "the recorder has seen the cache"
    assert not [path for path in elsewhere if not path.startswith(("/dev/", "/proc/", cache))]
    assert not list((folder / "temporary").iterdir())


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_of_the_metrics_and_a_torn_temporary_file_cost_that_line_at_most(recorded, cut):
    folder, _ = recorded
    whole = runs.outcome(sorted((folder / "states").iterdir())[-1])
    with_line = [s for s in sorted((folder / "states").iterdir()) if (s / "metrics.jsonl").exists()]
    state = next(s for s in with_line if "last.ckpt" in s.name)
    shutil.rmtree(folder / "run")
    shutil.copytree(state, folder / "run")
    metrics = folder / "run" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-cut])
    (folder / "run" / ".last.ckpt.1.tmp").write_bytes(b"PK torn")
    go_on(folder / "run")
    ended = runs.outcome(folder / "run")
    assert ended | {"rows": 0} == whole | {"rows": 0}
    assert lost(ended, whole) <= 1


def test_killed_at_random_moments_a_run_goes_on_to_the_same_end(recorded, tmp_path, request):
    folder, _ = recorded
    whole = runs.outcome(sorted((folder / "states").iterdir())[-1])
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    kills = request.config.getoption("--kills")
    for i in range(kills):
        run_dir = tmp_path / str(i)
        command = processes.Command(["-m", "ptune.fit", *line(run_dir)], tmp_path)
        delay = draw.uniform(0.1, 1.5)
        deadline = time.monotonic() + 60
        while not run_dir.exists() and time.monotonic() < deadline:  # options and data are read before
            time.sleep(0.01)
        time.sleep(delay)
        if command.process.is_alive():
            os.kill(command.process.pid, signal.SIGKILL)
        command.wait()
        if not (run_dir / "result.json").exists():
            go_on(run_dir)
        assert runs.outcome(run_dir) == whole, f"seed {seed}, kill {i} after {delay:.2f} s"


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_at_any_moment_is_no_error_and_the_run_goes_on_to_the_same_end(recorded, tmp_path, signals):
    """One is noted until the step ends, a second one ends the run wherever it is; thirty moments of a warm run."""

    def press():
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)

    def ended(run_dir, moment):
        timer = threading.Timer(moment, press)
        try:
            timer.start()
            code, _, err = runs.call(line(run_dir))
        except KeyboardInterrupt:  # before ptune handles signals, or behind its end
            return 130, ""
        finally:
            with contextlib.suppress(KeyboardInterrupt):
                timer.cancel()
                timer.join()
        return code, err

    folder, _ = recorded
    whole = runs.outcome(sorted((folder / "states").iterdir())[-1])
    ended(tmp_path / "cold", 999)
    began = time.monotonic()
    ended(tmp_path / "warm", 999)
    took = time.monotonic() - began
    ends = []
    for i in range(30):
        run_dir = tmp_path / str(i)
        ends.append((*ended(run_dir, (i + 1) / 30 * took), i))
        if i % 5 == 0 and not (run_dir / "result.json").exists():
            code, _, err = runs.call(line(run_dir, *["--ckpt_path", "auto"][: 2 * run_dir.exists()]))
            assert code == 0, err
            assert not different_in(runs.outcome(run_dir), whole)
    assert [end for end in ends if end[0] not in (0, 130) or "Traceback" in end[1]] == []
    assert any(code == 130 for code, _, _ in ends)


@pytest.mark.parametrize("limit", [300, 3000, 9000])
def test_a_full_disk_loses_nothing_that_was_written(recorded, tmp_path, limit):
    """No file may be longer than the limit, as on a disk that is full: the configuration, the metrics, a checkpoint."""
    folder, _ = recorded
    whole = runs.outcome(sorted((folder / "states").iterdir())[-1])
    (tmp_path / "full.py").write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "from ptune.fit import main\n"
        "main(sys.argv[1:])\n"
    )
    run_dir = tmp_path / "run"
    done = processes.Command(["full.py", *line(run_dir)], tmp_path).wait()
    assert done.code != 0
    assert not (run_dir / "result.json").exists()
    assert not list(run_dir.rglob(".*.tmp"))
    go_on(run_dir)
    assert runs.outcome(run_dir) == whole


def test_of_two_runs_for_one_directory_one_writes(tmp_path):
    run_dir = tmp_path / "run"
    commands = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        commands.append(processes.Command(["-m", "ptune.fit", *line(run_dir, seed_everything=seed)], folder))
    ends = [command.wait() for command in commands]
    assert sorted(end.code for end in ends) == [0, 2]
    (refused,) = [end.err for end in ends if end.code == 2]
    assert refused.count("\n") == 1
    assert "run_dir: " in refused
    result = json.loads((run_dir / "result.json").read_text())
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert result["seed"] == config["seed_everything"] == 1 + [end.code for end in ends].index(0)
