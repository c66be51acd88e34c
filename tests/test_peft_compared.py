"""What README.md says of PEFT next to ptune, shown with the PEFT that is installed."""

import peft
import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

P = 4
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
CONFIG = BertConfig(**SIZES)


def prompted(model, task, kind=peft.PromptTuningConfig, **options):
    """A model with PEFT's prompt."""
    return peft.get_peft_model(model, kind(task_type=task, num_virtual_tokens=P, **options))


def test_a_soft_prompt_cannot_be_trained_for_tagging(batch):
    model = prompted(BertForTokenClassification(CONFIG), "TOKEN_CLS")
    inputs = batch()
    with pytest.raises(ValueError, match="batch_size"):
        model(**inputs, labels=torch.zeros_like(inputs["input_ids"]))


def test_a_soft_prompt_moves_the_answers_of_question_answering(batch):
    model = prompted(BertForQuestionAnswering(CONFIG), "QUESTION_ANS")
    inputs = batch()
    output = model(**inputs, start_positions=torch.zeros(3).long(), end_positions=torch.zeros(3).long())
    assert output.start_logits.shape[1] == inputs["input_ids"].shape[1] + P


def test_a_soft_prompt_takes_the_place_of_the_first_token_that_bert_pools(batch):
    model = prompted(BertForSequenceClassification(CONFIG), "SEQ_CLS").eval()
    seen = []
    model.base_model.bert.pooler.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    model(**batch())
    assert seen == [7 + P]


def test_a_prefix_cannot_be_trained_with_gradient_checkpointing():
    model = BertForSequenceClassification(CONFIG)
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        prompted(model, "SEQ_CLS", peft.PrefixTuningConfig)


def test_a_prefix_does_not_reach_xlnet(batch):
    config = XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=48, vocab_size=60)
    model = XLNetForSequenceClassification(config)
    with pytest.raises((ValueError, AttributeError, TypeError)):
        prompted(model, "SEQ_CLS", peft.PrefixTuningConfig)(**batch())
