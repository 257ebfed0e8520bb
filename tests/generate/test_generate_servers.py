"""The client and the judge against a real server: `transformers serve` with a model of random weights.

It needs `pip install 'transformers[serving]'`. FLEDGE_SERVER=http://HOST:PORT/v1 with FLEDGE_SERVER_MODEL asks one
that runs already (vLLM, SGLang, llama.cpp) instead.
"""

from __future__ import annotations

import http.client
import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fledge.core.config import build
from fledge.core.records import Message
from fledge.generate.remote import Ask, Endpoint, Remote
from fledge.reward.judge import Judge, JudgeConfig

pytestmark = pytest.mark.long
NEEDED = ("transformers", "fastapi", "uvicorn", "openai")
TEXT = "the cat"
CAT = (Message(role="user", content="the cat"),)


def save_model(folder: Path) -> None:
    from fledge.model.config import DecoderConfig
    from fledge.model.decoder import Decoder
    from fledge.model.hf import save_decoder
    from fledge.tokenizer import bpe

    tokenizer = bpe.train(["the cat sat on the mat, the dog ran to the log. 你好，我是小雀。"] * 20, 384)
    config = DecoderConfig(
        vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(0)
    # This server samples only where the model says so, whatever temperature is asked for.
    save_decoder(decoder, folder, {"eos_token_id": tokenizer.im_end, "do_sample": True})
    tokenizer.save(folder)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    if url := os.environ.get("FLEDGE_SERVER"):
        yield {"url": url, "model": os.environ.get("FLEDGE_SERVER_MODEL", "default"), "timeout": 120}
        return
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no server is installed: {', '.join(missing)} missing (pip install 'transformers[serving]')")
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = (folder.parent / "log").open("wb")
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"], env=offline, stdout=log, stderr=log
    )
    try:
        _wait(server, port, folder.parent / "log")
        yield {"url": f"http://127.0.0.1:{port}/v1", "model": str(folder), "timeout": 120}
    finally:
        server.kill()
        server.wait()
        log.close()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-1500:]
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            line.request("GET", "/health")
            if line.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            line.close()
    raise AssertionError("the server did not start: " + log.read_text(errors="replace")[-1500:])


def remote(endpoint: dict[str, object], **changes: object) -> Remote:
    return Remote(build(Endpoint, {"attempts": 2, "pause": 0.1} | endpoint | changes))


def test_samples_seeds_and_greedy(endpoint: dict[str, object]) -> None:
    """Several samples come one by one where the server gives one whatever n is; where that is not set, it says so."""
    whole = remote(endpoint).ask([Ask(text=TEXT, n=3, max_tokens=6)])[0]
    assert len(whole.samples) == 3 or "split=true asks one by one" in whole.failure
    split = remote(endpoint, split=True, concurrency=1)
    once, again = (split.ask([Ask(text=TEXT, n=3, max_tokens=6, temperature=50, seed=5)])[0] for _ in range(2))
    assert not once.failure
    assert len(once.samples) == 3
    assert [one.text for one in once.samples] == [one.text for one in again.samples]
    greedy = remote(endpoint).ask([Ask(text=TEXT, max_tokens=6, temperature=0)] * 2)
    assert greedy[0].samples == greedy[1].samples != ()
    assert greedy[0].samples[0].text.strip(), "control tokens alone have no text: no proof"
    assert len({one.text for one in once.samples}) > 1, "each sample has a seed of its own"


def test_many_at_once_keep_their_places(endpoint: dict[str, object]) -> None:
    asks = [Ask(text="the cat " * n, max_tokens=4, temperature=0) for n in range(1, 9)]
    together, alone = remote(endpoint, concurrency=4).ask(asks), remote(endpoint, concurrency=1).ask(asks)
    assert [one.failure for one in together] == [""] * 8
    chat = remote(endpoint).ask([Ask(CAT, max_tokens=4, temperature=0)] * 2)
    assert [one.failure for one in chat] == ["", ""]
    assert [one.samples[0].text for one in together] == [one.samples[0].text for one in alone]


def test_stop_and_length(endpoint: dict[str, object]) -> None:
    long = remote(endpoint).ask([Ask(text=TEXT, max_tokens=4, temperature=0)])[0].samples[0]
    assert long.reason in ("length", "stop")
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    cut = remote(endpoint).ask([Ask(text=TEXT, max_tokens=60, temperature=0, stop=letters)])[0]
    assert not cut.failure
    assert len([letter for letter in cut.samples[0].text if letter in letters]) <= 4, "one token after the first"


def test_log_probabilities_are_there_or_not(endpoint: dict[str, object]) -> None:
    """Never made up: a server that has none leaves them None."""
    for ask in (Ask(CAT, max_tokens=4, logprobs=True), Ask(text="the cat", max_tokens=4, logprobs=True)):
        answer = remote(endpoint).ask([ask])[0]
        assert not answer.failure
        logp = answer.samples[0].logp
        assert logp is None or (len(logp) <= 4 and all(math.isfinite(value) and value <= 0 for value in logp))


def test_an_unknown_model_is_a_failure_with_a_reason(endpoint: dict[str, object]) -> None:
    answer = remote(endpoint, model="no/such-model").ask([Ask(CAT, max_tokens=4)])[0]
    assert answer.failure.startswith("HTTP ") or answer.samples  # some servers take any name


def test_a_judge_that_knows_nothing(endpoint: dict[str, object], tmp_path: Path) -> None:
    """Random weights say no verdict: each is counted as unclear, none is a number, and none is kept."""
    cache = tmp_path / "judge.jsonl"
    judge = Judge(build(JudgeConfig, {"endpoint": endpoint, "cache": str(cache), "max_tokens": 8}))
    verdicts = judge.rate([(CAT, "a cat"), (CAT, "a dog")])
    assert [one.value for one in verdicts] == [None, None]
    assert all(one.failure.startswith("unclear") for one in verdicts), verdicts
    assert (judge.counts.unclear, judge.counts.down) == (2, 0)
    assert not cache.exists() or cache.read_text() == ""
