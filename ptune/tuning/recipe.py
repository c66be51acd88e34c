"""What is kept with saved tensors of the data module: how it reads a row."""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Recipe(Protocol):
    """A data module that says how it reads a row, as those of ptune do."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Its arguments, in JSON's types."""

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """What it has learned from the data, in JSON's types."""


def is_own(data: Any) -> bool:
    """Whether a data module is one of ptune's; another is used as plain loaders are."""
    return isinstance(data, Recipe)


def kept(data: Any) -> dict[str, Any]:
    """What is kept of a data module; nothing of one that is not ptune's."""
    if not is_own(data):
        return {}
    return {"class": type(data).__name__, "arguments": data.recipe(), "learned": data.learned()}
