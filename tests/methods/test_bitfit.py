"""BitFit trains what a family calls a bias, and refuses a family that has none."""

import pytest

from ptune.errors import InputError
from ptune.methods.bitfit import BitFit


@pytest.mark.parametrize(
    ("family", "a_bias", "count"),
    [
        ("gpt2", "model.h.0.attn.c_attn.bias", 3 * 6 + 1),
        ("deberta", "model.encoder.layer.0.attention.self.q_bias", None),
        ("xlnet", "model.layer.0.rel_attn.r_w_bias", None),
    ],
)
def test_every_bias_of_a_family_is_trained_and_nothing_else(tiny, head, family, a_bias, count):
    model = BitFit(backbone=tiny(family), head=head("classify"))
    model.configure_model()
    tuned = model.backbone_parameters(model.backbone)
    assert a_bias in tuned
    assert count in (None, len(tuned))
    assert not any(name.endswith("weight") for name in tuned)


@pytest.mark.parametrize("family", ["llama", "t5", "modernbert"])
def test_a_backbone_without_biases_is_refused(tiny, head, family):
    with pytest.raises(InputError, match=rf"model type '{family}'\) has no biases to train; choose another backbone"):
        BitFit(backbone=tiny(family), head=head("classify")).configure_model()
