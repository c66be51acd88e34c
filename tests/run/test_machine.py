"""When, where and with which code a command was run."""

import subprocess
from pathlib import Path

import pytest
import torch

from ptune.run import machine


def git(folder: Path, *words: str) -> str:
    """What git says in a folder, as a user of its own."""
    options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *options, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def package(tmp_path):
    """A package in a checkout of one commit, beside other files and an environment that is ignored."""
    package = tmp_path / "package"
    for file in (package / "__init__.py", package / "method.py", tmp_path / "notes.txt"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("venv/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return package


@pytest.mark.parametrize(
    ("written", "dirty"),
    [("notes.txt", False), ("package/method.py", True), ("package/another_method.py", True)],
)
def test_a_checkout_is_its_commit_and_whether_a_file_of_the_package_differs(written, dirty, package):
    (package.parent / written).write_text("b = 2\n")
    commit = git(package, "rev-parse", "HEAD").strip()
    assert machine.checkout(package) == (commit, dirty)


@pytest.mark.parametrize("folder", ["venv", "elsewhere"])
def test_an_installed_package_is_not_taken_for_the_repository_that_it_lies_in(folder, package):
    installed = package.parent / folder / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert machine.checkout(installed) == (None, None)


def test_outside_of_a_repository_and_without_git_there_is_no_commit(tmp_path, package, monkeypatch):
    assert machine.checkout(Path(torch.__file__).parent) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.checkout(package / ".") == (None, None)


def test_a_device_has_its_name():
    name, file = machine.device(torch.device("cpu")), Path("/proc/cpuinfo")
    assert name
    if file.exists() and "model name" in file.read_text():
        assert f": {name}\n" in file.read_text()
    assert machine.device(torch.device("meta")) == "meta"
