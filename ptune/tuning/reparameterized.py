"""`Reparameterized`: a prompt whose tensors are computed from others while it is trained."""

from abc import ABC, abstractmethod

from torch import nn


class Reparameterized(nn.Module, ABC):
    """A prompt module that computes what the backbone reads; only the result is needed for inference."""

    @abstractmethod
    def folded(self) -> nn.Module:
        """A module whose parameters are what this one computes; the scores stay the same. This module is unchanged."""
