"""When, where and with which code a command was run: what a result says beside its numbers."""

import platform
import shlex
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("ptune", "torch", "lightning", "transformers", "datasets", "torchmetrics", "peft")
"""Packages whose versions a result names, where they are installed."""
PACKAGE = Path(__file__).parents[1]
"""The folder of ptune."""


def about(name: str, args: list[str]) -> dict[str, Any]:
    """Date (UTC), host, command line, versions, and the state of ptune's code.

    Args:
        name: name of the command.
        args: the words behind it, as the user gave them.
    """
    commit, dirty = checkout(PACKAGE)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": shlex.join(["ptune", name, *args]),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def checkout(package: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that a package is imported from, and whether the package's files differ from it.

    Both are None where the package is installed: it may lie within a repository, which does not track it then.
    """

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def device(place: torch.device) -> str:
    """Name of the GPU or model of the CPU; only the kind of another device."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return _processor() if place.type == "cpu" else place.type


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux; not on all processors
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
