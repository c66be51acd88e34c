"""Task heads, the same for every backbone, their losses and metrics."""

from ptune.backbone.pretrained import BackboneSpec
from ptune.heads.base import Batch, Head
from ptune.heads.cloze import Cloze, ClozeChoice, Fill
from ptune.heads.linear import Choice, Classify, Regress, Span, Tag
from ptune.tasks.spec import HeadSpec

__all__ = ["Batch", "Head", "head_for"]


def head_for(spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool = True) -> Head:
    """The head a task asks for; `bias` where it makes a difference.

    Raises:
        InputError: the tokenizer cannot spell a word of a cloze.
    """
    width = backbone.width
    match spec.kind:
        case "classify":
            return Classify(width, len(spec.labels), dropout, bias)
        case "regress":
            return Regress(width, 1, dropout, bias)
        case "choice":
            return Choice(width, 1, dropout, bias=False)
        case "span":
            return Span(width, 2, dropout, bias=False)
        case "tag":
            return Tag(width, len(spec.labels), dropout, bias)
        case "cloze":
            return Cloze(spec.words, backbone)
        case "cloze_choice":
            return ClozeChoice()
        case "fill":
            return Fill(backbone)
