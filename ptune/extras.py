"""Optional packages, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from ptune.errors import InputError


def require(package: str, extra: str, instead: str = "") -> ModuleType:
    """Import `package`; where it is not installed, an InputError names the extra of ptune that brings it.

    `instead` says what else the user may do.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f'package {error.name!r} is not installed; pip install "ptune[{extra}]"{instead}.') from error
