"""The client for remote engines, against a real HTTP server on this machine that behaves and misbehaves."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.records import Message
from fledge.generate.remote import Ask, Endpoint, Remote

KEY = "hunter2-of-the-endpoint"


class Server(ThreadingHTTPServer):
    """The name of the model says how it behaves; what was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.times: dict[str, list[float]] = defaultdict(list)
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle(self) -> None:
        with suppress(OSError):  # a client that has gone
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, model = self.server, body["model"]
        with server.lock:
            server.asked.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            server.times[model].append(time.monotonic())
            count = len(server.times[model])
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            BEHAVIOUR[model](self, body, count)
        finally:
            with server.lock:
                server.under_way -= 1

    def reply(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def good(handler: Handler, body: dict[str, Any], count: int) -> None:
    """Each sample says the seed and its place; log-probabilities where they are asked for."""
    choices: list[dict[str, Any]] = []
    for index in range(body["n"]):
        text = f"{body.get('prompt') or body['messages'][-1]['content']} {body.get('seed')} {index}"
        choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "logprobs": None}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": text, "logprob": -0.5}]}
        else:
            choice["text"] = text
            if "logprobs" in body:
                choice["logprobs"] = {"tokens": [text], "token_logprobs": [-0.25]}
        choices.append(choice)
    handler.reply(200, {"choices": choices[::-1]})


def busy(handler: Handler, body: dict[str, Any], count: int) -> None:
    statuses = {1: 429, 2: 503, 3: 500}
    if count in statuses:
        handler.reply(statuses[count], {"error": {"message": "busy"}})
    else:
        good(handler, body, count)


def later(handler: Handler, body: dict[str, Any], count: int) -> None:
    if count == 1:
        handler.reply(429, {"error": {"message": "later"}}, Retry_After="1")
    else:
        good(handler, body, count)


def slow(handler: Handler, body: dict[str, Any], count: int) -> None:
    time.sleep(0.6 if count == 1 else 0)
    good(handler, body, count)


def drip(handler: Handler, body: dict[str, Any], count: int) -> None:
    """A byte now and then, for ever: no single read takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b"{")
        handler.wfile.flush()
        time.sleep(0.05)


def head(handler: Handler, body: dict[str, Any], count: int) -> None:
    """The same with a header, which the library reads byte by byte."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def dropped(handler: Handler, body: dict[str, Any], count: int) -> None:
    if count <= 2:
        handler.close_connection = True
        handler.connection.close()
    else:
        good(handler, body, count)


def forgetful(handler: Handler, body: dict[str, Any], count: int) -> None:
    """Closes a kept connection without saying so."""
    good(handler, body, count)
    handler.close_connection = True


BEHAVIOUR: dict[str, Callable[[Handler, dict[str, Any], int], None]] = {
    "good": good, "busy": busy, "later": later, "slow": slow, "drip": drip, "head": head,
    "dropped": dropped, "forgetful": forgetful,
    "hangs": lambda handler, body, count: time.sleep(3),
    "pausing": lambda handler, body, count: (time.sleep(0.05), good(handler, body, count))[0],
    "down": lambda handler, body, count: handler.reply(503, b"<html>down</html>"),
    "refuses": lambda handler, body, count: handler.reply(401, {"error": {"message": f"wrong key {KEY}\x1b[31m"}}),
    "moved": lambda handler, body, count: handler.reply(302, b"", Location="http://elsewhere.example/"),
    "page": lambda handler, body, count: handler.reply(200, b"<html>welcome</html>"),
    "nested": lambda handler, body, count: handler.reply(200, b"[" * 200_000),
    "shape": lambda handler, body, count: handler.reply(200, {"choices": [{"index": 0, "message": {"content": 7}}]}),
    "one": lambda handler, body, count: good(handler, body | {"n": 1}, count),
    "silent": lambda handler, body, count: handler.reply(200, {"choices": [{"message": {"content": None}}]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def remote(server: Server, model: str, **values: Any) -> Remote:
    server.times[model].clear()
    return Remote(Endpoint(url=server.url, model=model, **({"pause": 0.01, "timeout": 10.0} | values)))


def chat(text: str, **values: Any) -> Ask:
    return Ask(messages=(Message(role="user", content=text),), **values)


def test_chat_with_samples_seed_and_log_probabilities(server: Server) -> None:
    client = remote(server, "good")
    ask = chat("hé", n=3, seed=7, temperature=0.5, top_p=0.9, max_tokens=11, stop=("\n",), logprobs=True)
    (answer,) = client.ask([ask])
    assert [sample.text for sample in answer.samples] == ["hé 7 0", "hé 7 1", "hé 7 2"]  # in the order of their index
    assert (answer.samples[0].logp, answer.samples[0].tokens) == ((-0.5,), ("hé 7 0",))
    assert (answer.samples[0].reason, answer.attempts, answer.failure) == ("stop", 1, "")
    sent = server.asked[-1]
    assert sent["path"] == "/v1/chat/completions"
    assert {k: sent[k] for k in ("n", "seed", "temperature", "top_p", "max_tokens", "stop", "logprobs")} == {
        "n": 3, "seed": 7, "temperature": 0.5, "top_p": 0.9, "max_tokens": 11, "stop": ["\n"], "logprobs": True,
    }  # fmt: skip
    assert sent["messages"] == [{"role": "user", "content": "hé"}]
    assert sent["key"] is None


def test_text_to_continue(server: Server) -> None:
    (answer,) = remote(server, "good").ask([Ask(text="once", logprobs=True)])
    assert answer.samples[0].text == "once None 0"
    assert answer.samples[0].logp == (-0.25,)
    assert server.asked[-1]["path"] == "/v1/completions"
    assert "seed" not in server.asked[-1]


def test_many_keep_their_order_and_the_limit(server: Server) -> None:
    client = remote(server, "pausing", concurrency=3)
    server.most = 0
    finished: list[int] = []
    answers = client.ask([chat(str(i)) for i in range(20)], finished.append)
    assert [answer.samples[0].text for answer in answers] == [f"{i} None 0" for i in range(20)]
    assert server.most == 3
    assert sum(finished) == 20
    assert (client.traffic.requests, client.traffic.failed) == (20, 0)
    assert client.ask([]) == []


def test_one_by_one_where_the_server_knows_no_n(server: Server) -> None:
    (answer,) = remote(server, "one").ask([chat("x", n=3, seed=5)])
    assert "3 samples were asked for and 1 came" in answer.failure
    (answer,) = remote(server, "one", split=True).ask([chat("x", n=3, seed=5)])
    assert [sample.text for sample in answer.samples] == ["x 5 0", "x 6 0", "x 7 0"]


@pytest.mark.parametrize(("model", "attempts"), [("busy", 4), ("dropped", 3), ("forgetful", 1)])
def test_tried_again(server: Server, model: str, attempts: int) -> None:
    client = remote(server, model, concurrency=1)
    (answer,) = client.ask([chat("x")])
    assert (answer.failure, answer.attempts) == ("", attempts)
    assert client.traffic.again == attempts - 1
    first, second = client.ask([chat("x"), chat("y")])
    assert (first.failure, second.failure) == ("", "")


def test_a_timeout_is_tried_again(server: Server) -> None:
    (answer,) = remote(server, "slow", timeout=0.2).ask([chat("x")])
    assert (answer.failure, answer.attempts) == ("", 2)


def test_pauses_double_with_jitter_up_to_the_last_attempt(server: Server) -> None:
    client = remote(server, "down", pause=0.04, attempts=4)
    (answer,) = client.ask([chat("x")])
    assert (answer.failure, answer.attempts) == ("HTTP 503: <html>down</html>", 4)
    times = server.times["down"]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(gaps) == 3
    assert all(gap >= 0.5 * 0.04 * 2**i for i, gap in enumerate(gaps))
    assert 0.14 <= client.traffic.paused <= 0.28
    assert client.traffic.failures == {"HTTP 503": 1}


def test_the_server_says_how_long_to_wait(server: Server) -> None:
    client = remote(server, "later")
    (answer,) = client.ask([chat("x")])
    assert answer.samples
    first, second = server.times["later"]
    assert second - first >= 0.95


@pytest.mark.parametrize("model", ["hangs", "drip", "head", "down"])
def test_the_whole_ends_in_time(server: Server, model: str) -> None:
    """Whatever the server does: a read that hangs, a byte now and then, also of a header, refusals without end."""
    began = time.monotonic()
    client = remote(server, model, total=0.5, attempts=10_000, concurrency=2)
    answers = client.ask([chat(str(i)) for i in range(6)])
    assert time.monotonic() - began < 2.5
    assert all(answer.failure and not answer.samples for answer in answers)
    assert client.traffic.failed == 6


def test_a_byte_now_and_then_is_a_timeout(server: Server) -> None:
    (answer,) = remote(server, "drip", timeout=0.3, attempts=1).ask([chat("x")])
    assert answer.failure.startswith("timeout")
    assert answer.seconds < 3


def test_nobody_there() -> None:
    client = Remote(Endpoint(url="http://127.0.0.1:9/v1", model="x", attempts=2, pause=0.01))
    (answer,) = client.ask([chat("x")])
    assert answer.failure.startswith("connection:")
    assert answer.attempts == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("moved", "HTTP 302"),
        ("page", "not understood: JSONDecodeError"),
        ("nested", "not understood: RecursionError"),
        ("shape", "not understood: TypeError"),
        ("refuses", "HTTP 401: wrong key ***"),
    ],
)
def test_nonsense_is_a_failure_that_is_not_tried_again(
    server: Server, model: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    (answer,) = remote(server, model, key="ENDPOINT_KEY").ask([chat("x")])
    assert answer.failure.startswith(words)
    assert (answer.attempts, answer.samples) == (1, ())
    assert "\x1b" not in answer.failure
    assert KEY not in repr(answer)


def test_a_reply_of_nothing(server: Server) -> None:
    (answer,) = remote(server, "silent").ask([chat("x")])
    assert (answer.samples[0].text, answer.failure) == ("", "")


def test_keys_are_named_sent_and_kept_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    client = remote(server, "good", key="ENDPOINT_KEY")
    client.ask([chat("x")])
    assert server.asked[-1]["key"] == f"Bearer {KEY}"
    assert client.endpoint.plain()["key"] == "ENDPOINT_KEY"
    assert KEY not in repr(vars(client)) + json.dumps(client.endpoint.plain())


def test_keys_that_are_missing_or_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDPOINT_KEY", raising=False)
    values = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(ConfigError, match="variable ENDPOINT_KEY is not set"):
        Remote(build(Endpoint, values | {"key": "ENDPOINT_KEY"}))
    for wrong in ({"key": "sk-very-secret"}, {"url": "http://me:very-secret@127.0.0.1/v1"}):
        with pytest.raises(ConfigError) as caught:
            build(Endpoint, values | wrong)
        assert "very-secret" not in str(caught.value)
    for key in ("", " ", "two\nlines", "schlüssel"):
        monkeypatch.setenv("ENDPOINT_KEY", key)
        with pytest.raises(ConfigError, match="ENDPOINT_KEY"):
            Remote(build(Endpoint, values | {"key": "ENDPOINT_KEY"}))
    with pytest.raises(ConfigError, match="expected http"):
        build(Endpoint, values | {"url": "127.0.0.1:8000"})
