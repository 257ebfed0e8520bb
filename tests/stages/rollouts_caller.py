"""A small model that calls a tool, learned by heart: what rollouts with tools are tested on, here and on ranks."""

from __future__ import annotations

from typing import Any

import torch

from fledge.core.config import build
from fledge.core.records import Message, Task
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.stages.grpo import Config
from fledge.tokenizer import bpe
from fledge.tokenizer.chat import encode_chat
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

CALL = "<tool_call>{}</tool_call>"
OPEN = [("user", "2+3?"), ("assistant", CALL.format("2+3")), ("tool", "5"), ("assistant", "it is 5")]
AGAIN = [("user", "go"), *[("assistant", CALL.format("1+1")), ("tool", "2")] * 3, ("assistant", "at last")]
PLAIN = [("user", "hi"), ("assistant", "a\nbc\nd")]


def messages(turns: list[tuple[str, str]]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": content}) for role, content in turns]


def make_words() -> Tokenizer:
    return bpe.train([CALL, "2+3? it is 5 go at last hi error", "user assistant tool"] * 20, vocab_size=300, pad_to=4)


def make_caller(words: Tokenizer) -> Trainee:
    """A small model that has learned three dialogues by heart: it calls the tool once, again and again, or never."""
    torch.set_num_threads(1)
    config = DecoderConfig(
        vocab_size=words.vocab_size, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(0)
    schedule = {"kind": "linear", "warmup": 5, "floor": 0.0}
    settings = {"lr": 1e-2, "weight_decay": 0.0, "schedule": schedule}
    trainee = Trainee(decoder, OptimizerConfig.model_validate(settings))
    coded = [encode_chat(words, messages(turns), final_newline=False) for turns in (OPEN, AGAIN, PLAIN)]
    examples = [single(one.ids, one.weights) for one in coded]
    objective = Likelihood()
    for step in range(80):
        loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
        loss.backward()
        trainee.step(step, 80)
    assert float(loss) < 0.05
    return trainee


def tasks(*questions: str, verifier: str = "contains", answer: dict[str, Any] | None = None) -> list[Task]:
    return [
        Task(id=q, messages=(Message(role="user", content=q),), verifier=verifier, answer=answer or {"any": ["5"]})
        for q in questions
    ]


def config(rollout: dict[str, Any], **values: Any) -> Config:
    own = {"prompts": 1, "samples": 2, "max_new_tokens": 120, "temperature": 0.05, **rollout}
    settings = {"model": ".", "tasks": ["."], "optimizer": {"lr": 1e-3}, "dtype": "float32", "rollout": own}
    return build(Config, {**settings, **values})
