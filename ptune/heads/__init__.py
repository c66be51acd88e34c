"""Task heads, the same for every backbone, their losses and metrics."""

from ptune.backbone.pretrained import BackboneSpec
from ptune.heads.base import Batch, Head, head_class, kinds
from ptune.tasks.spec import HeadSpec

__all__ = ["Batch", "Head", "head_class", "head_for", "kinds"]


def head_for(spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool = True) -> Head:
    """The head that a task asks for; `bias` where it makes a difference.

    Raises:
        InputError: there is no such kind, or the tokenizer cannot spell a word of a cloze.
    """
    return head_class(spec.kind).build(spec, backbone, dropout, bias)
