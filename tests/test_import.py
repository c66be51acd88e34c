"""`import ptune` is quick: nothing heavy comes with it before it is needed."""

import subprocess
import sys

import pytest

import ptune

HEAVY = (
    "torch",
    "lightning",
    "transformers",
    "datasets",
    "wandb",
    "matplotlib",
    "torchmetrics",
    "jsonargparse",
    "peft",
)
GUARD = """
import builtins, os, socket, sys
def refuse(event, args):
    if event == "open" and set("wax+") & set(str(args[1])):
        raise RuntimeError(f"opened {args[0]}")
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(refuse)
"""


def loaded(code: str) -> set[str]:
    """Which heavy packages a fresh process has imported after `code`."""
    tail = f"\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import ptune", "import ptune; dir(ptune); ptune.__version__", "import ptune.errors"])
def test_importing_ptune_imports_no_heavy_package(code):
    assert loaded(code) == set()


def test_a_task_is_looked_up_without_heavy_packages_network_or_writing():
    code = GUARD + 'import ptune\nassert ptune.task("rte").text'
    assert loaded(code) == set()


def test_the_guard_sees_a_file_that_is_opened_for_writing(tmp_path):
    code = GUARD + f"open({str(tmp_path / 'x')!r}, 'w')"
    with pytest.raises(AssertionError, match="opened"):
        loaded(code)


@pytest.mark.slow
def test_the_command_line_needs_neither_datasets_nor_wandb_nor_peft():
    # torchmetrics takes matplotlib if it is there
    assert not loaded("import ptune.fit") & {"datasets", "wandb", "peft"}


@pytest.mark.parametrize("name", ptune.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ptune, name).__module__.startswith("ptune.")
    assert name in dir(ptune)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'PTuningV3'"):
        ptune.PTuningV3  # noqa: B018


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_mib_on_every_system(platform, unit, monkeypatch):
    import resource

    from ptune.run import callbacks

    monkeypatch.setattr(callbacks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(callbacks.sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    assert before <= callbacks.peak_memory() <= 1.1 * before + 1
