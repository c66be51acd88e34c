"""Cells on a Ray cluster: every one ends, none twice, with the results of the local grid, though a node dies."""

import json
import os
import shlex
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import fakes
import grids
import pytest

from ptune.errors import InputError
from ptune.grid import main
from ptune.research import on_ray
from ptune.research.attempt import End, begin
from ptune.research.cells import cell


@pytest.fixture
def one(tmp_path, monkeypatch):
    """A cell with a configuration file."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("data: {class_path: Classification, init_args: {task: rte}}\n")
    return cell({"seed": "1"}, [{"config": "recipe.yaml", "method": "LinearProbe", "seed": 1}], Path("runs/1"))


def sent(one, tmp_path, token="ours"):
    """What a node sends back of a cell."""
    return on_ray.away(one, on_ray._inline(one), fakes.ends, 1, str(tmp_path), token)


def test_where_the_directory_is_shared_a_cell_works_in_it(one, tmp_path):
    begin(one)
    (one.run_dir / on_ray.TOKEN).write_text("ours")
    end, files = sent(one, tmp_path)
    assert end.result == one.result
    assert " --config recipe.yaml " in shlex.join(one.result["argv"])
    assert files == {}


def test_where_it_is_not_what_the_run_leaves_is_sent_and_written_once(one, tmp_path):
    begin(one)
    (one.run_dir / on_ray.TOKEN).write_text("another driver's")
    Path("recipe.yaml").rename("elsewhere.yaml")
    inline = ("--config", Path("elsewhere.yaml").read_text() + "\n", *one.words[2:])
    end, files = on_ray.away(one, inline, fakes.ends, 1, str(tmp_path), "ours")
    assert end == End(one, "", json.loads(files["result.json"]))
    assert set(files) == {"result.json", "output.txt"}
    assert one.result is None
    on_ray.bring(one, files)
    assert one.result == end.result
    on_ray.bring(one, files | {"result.json": b"{}"})
    assert one.result == end.result
    assert json.loads((one.run_dir / "cell.json").read_text())["words"] == list(one.words)


def test_a_failure_elsewhere_names_the_cells_own_directory(one, tmp_path):
    failing = replace(one, words=(*one.words, "--seed_everything", "13"))
    end, files = sent(failing, tmp_path)
    assert end.error == "13 is no seed for a grid."
    on_ray.bring(failing, files)
    assert json.loads((one.run_dir / "failed.json").read_text())["error"] == end.error


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_a_cluster_that_does_not_answer_is_one_sentence(address):
    pytest.importorskip("ray", reason="needs the extra ptune[ray]")
    with pytest.raises(InputError, match=rf"--on {address}: no Ray cluster answers there \(.+\); `ray start --head`"):
        next(on_ray.work([], fakes.ends, None, None, None, address))


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose head runs nothing, of nodes in processes of this machine: cluster.add_node(num_cpus=1)."""
    pytest.importorskip("ray", reason="needs the extra ptune[ray]")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        yield found
        found.shutdown()


@pytest.mark.slow
@pytest.mark.deep
def test_a_node_dies_and_every_cell_ends_once_with_the_results_of_the_local_grid(cluster, tmp_path, capsys):
    file = grids.grid(tmp_path, seed=[1, 2])
    assert main([str(file), "--runs", str(tmp_path / "local")]) == 0
    assert "4 of 4 cells are done" in capsys.readouterr().out
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]

    def kill() -> None:
        """Kill a node when runs are under way."""
        while len(list((tmp_path / "runs").rglob("last.ckpt"))) < 2:
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert main([str(file), "--runs", str(tmp_path / "runs"), "--on", cluster.address]) == 0, capsys.readouterr()
    killer.join(1)
    assert not killer.is_alive()
    out = capsys.readouterr().out
    assert sum(line.startswith("done   ") for line in out.splitlines()) == 4
    assert "4 of 4 cells are done" in out
    assert grids.results(tmp_path / "runs") == grids.results(tmp_path / "local")
    assert grids.repeated(tmp_path / "runs") <= 3, "of the dead node's cell, an epoch"


@pytest.mark.slow
@pytest.mark.deep
def test_without_a_shared_folder_results_come_back(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_ray, "TOKEN", ".driver-of-this-process-alone")  # which the nodes do not look for
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    file = grids.grid(tmp_path, seed=[1])
    assert main([str(file), "--runs", str(tmp_path / "local")]) == 0, capsys.readouterr()
    assert main([str(file), "--runs", str(tmp_path / "runs"), "--on", cluster.address]) == 0, capsys.readouterr()
    assert grids.results(tmp_path / "runs") == grids.results(tmp_path / "local")
    for run_dir in (file.parent for file in (tmp_path / "runs").rglob("result.json")):
        assert {"config.yaml", "metrics.jsonl", "prompts.safetensors", "output.txt", "cell.json"} <= {
            found.name for found in run_dir.iterdir()
        }
        assert list((run_dir / "predictions").iterdir())
        assert not list(run_dir.glob("*.ckpt"))
