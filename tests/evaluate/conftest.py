"""A small model that has learnt a few dialogues by heart, so that what it should score is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evaluate_items import ITEMS, make_task

from fledge.core.readers import write_jsonl
from fledge.core.records import Message


@contextmanager
def one_thread() -> Iterator[None]:
    """The model is tiny: a second thread only waits, and for very long where the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "test.jsonl"
    write_jsonl(path, [make_task(number) for number in range(len(ITEMS))])
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the model; it knows the dialogues in chat format and as plain text. Context: 96 tokens."""
    import torch

    from fledge.evaluate.prompts import plain_text
    from fledge.model.attention import PackedAttention, make_plan
    from fledge.model.config import DecoderConfig
    from fledge.model.decoder import Decoder
    from fledge.model.hf import save_decoder
    from fledge.model.layout import Layout
    from fledge.model.rotary import Rotary
    from fledge.tokenizer import bpe
    from fledge.tokenizer.chat import encode_chat

    tokenizer = bpe.train([f"{item[0]}\n{item[2]}\n\nQ: A: 问：答：" for item in ITEMS] * 4, 384)
    rows, learnt = [], []
    for question, language, reply, *_ in ITEMS:
        messages = [Message(role="user", content=question)]
        chat = encode_chat(tokenizer, [*messages, Message(role="assistant", content=reply)])
        # The page goes on with another question, as pages do: only the text says where the answer ends.
        prompt = tokenizer.encode(plain_text(messages, language))
        page = [*prompt, *tokenizer.encode(f" {reply}\nQ: 1+1?\nA: 2\nQ: 1+1?\nA: 2")]
        rows += [chat.ids, page]
        learnt += [[weight > 0 for weight in chat.weights], [place >= len(prompt) for place in range(len(page))]]
    config = DecoderConfig(
        vocab_size=384, hidden_size=96, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=96,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(0)
    tokens = torch.tensor([token for row in rows for token in row])
    lengths = [len(row) for row in rows]
    attend = PackedAttention(make_plan(Layout.of(lengths)), Rotary(config.head_dim, config.rope_theta), torch.float32)
    wanted = torch.tensor([flag for row in learnt for flag in row]).nonzero()[:, 0]
    with one_thread():
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
        worst = 9.0
        while worst > 0.3:  # every token of every reply by heart
            logits = decoder(tokens, attend)[wanted - 1] @ decoder.output_weight.T
            losses = torch.nn.functional.cross_entropy(logits, tokens[wanted], reduction="none")
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            worst = losses.max().item()
    folder = tmp_path_factory.mktemp("model") / "parrot"
    save_decoder(decoder, folder, {"eos_token_id": tokenizer.im_end})
    tokenizer.save(folder)
    return folder
