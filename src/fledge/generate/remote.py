"""A client for servers that speak OpenAI's interface (vLLM, SGLang, ...): teachers and judges that run elsewhere.

Nothing is asked of the network but by a call with an `Endpoint`, which only a configuration names. The key is named by
an environment variable, read when a request is sent, and is in no configuration, manifest, log or error.

A request that fails is never an exception that ends a batch: its answer says why. Refused connections, timeouts, 408,
409, 429 and 5xx are tried again, after a pause that doubles and is drawn at random (or as long as the server asks for).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.core.records import Message

LONGEST = 16 << 20  # bytes of a reply of the server
_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
_LAST_PAUSE = 30.0  # seconds: pauses do not grow beyond


class Endpoint(Config):
    """Where a model is served, and how patiently it is asked."""

    url: str = Field(description="base of the interface, as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name by which the server knows the model")
    key: str | None = Field(None, description="name of the environment variable that holds the key; never the key")
    concurrency: int = Field(8, ge=1, description="requests under way at once")
    timeout: float = Field(60.0, gt=0, description="seconds that one attempt may take")
    attempts: int = Field(5, ge=1, description="of each request, the first included")
    pause: float = Field(0.5, ge=0, description="seconds before the second attempt; doubles from then on, with jitter")
    total: float = Field(600.0, gt=0, description="seconds for all requests of one call; what is left then has failed")
    split: bool = Field(False, description="n samples as n requests, for servers that give one choice whatever n is")

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://HOST[:PORT]/v1 or https://...")
        if parts.username or parts.password:  # a ValueError would show the value
            raise ConfigError("endpoint.url holds a user or a password; put the key in a variable and name it in `key`")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _a_name(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", key):
            raise ConfigError("endpoint.key must be the name of an environment variable, not the key itself")
        return key


@dataclass(frozen=True)
class Ask:
    """One request: `messages` for a chat completion, or `text` to continue. `logprobs` asks for those of the tokens
    drawn. Sampling as the server understands it; what is None is left to the server."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    n: int = 1
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False


@dataclass(frozen=True)
class Sample:
    """`tokens` and `logp` (nats, of each token, under what the server says it sampled from) where they were given."""

    text: str
    reason: str
    tokens: tuple[str, ...] | None = None
    logp: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a request: its `n` samples, or why there are none."""

    samples: tuple[Sample, ...] = ()
    failure: str = ""
    attempts: int = 1
    seconds: float = 0.0


@dataclass
class Traffic:
    """Counts of a client since it was made. `paused` and `busy` are seconds, summed over requests."""

    requests: int = 0
    failed: int = 0
    again: int = 0
    paused: float = 0.0
    busy: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)


class Remote:
    """A client of one endpoint. Raises ConfigError where the variable of the key is not set."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.traffic = Traffic()
        self._lock = threading.Lock()
        self._jitter = random.Random()  # of its own: the process's generator shapes results
        _key(endpoint)

    def ask(self, asks: Sequence[Ask], on_progress: Callable[[int], object] | None = None) -> list[Answer]:
        """Answers, in order; at most `concurrency` under way. Ends after `total` seconds, whatever the server does."""
        if not asks:
            return []
        deadline = time.monotonic() + self.endpoint.total
        lines = _Lines(self.endpoint)
        pool = ThreadPoolExecutor(min(self.endpoint.concurrency, len(asks)), thread_name_prefix="fledge-remote")
        try:
            futures = [pool.submit(self._one, ask, lines, deadline) for ask in asks]
            if on_progress is not None:
                for future in futures:
                    future.add_done_callback(lambda _: self._advance(on_progress))
            wait(futures, timeout=self.endpoint.total)
            answers = [self._late(future) for future in futures]
        finally:
            lines.cut()  # what hangs in a read ends now
            pool.shutdown(wait=True, cancel_futures=True)
        for answer in answers:
            self._count(answer)
        return answers

    def _advance(self, on_progress: Callable[[int], object]) -> None:
        with self._lock:
            on_progress(1)

    def _late(self, future: Future[Answer]) -> Answer:
        if future.done():
            return future.result()
        future.cancel()
        return Answer(failure=f"no time left: {self.endpoint.total:g} s for all requests", attempts=0)

    def _count(self, answer: Answer) -> None:
        traffic = self.traffic
        traffic.requests += 1
        traffic.again += max(0, answer.attempts - 1)
        traffic.busy += answer.seconds
        if answer.failure:
            traffic.failed += 1
            reason = answer.failure.split(":")[0]
            traffic.failures[reason] = traffic.failures.get(reason, 0) + 1

    def _one(self, ask: Ask, lines: _Lines, deadline: float) -> Answer:
        """One request with its further attempts; with `split`, one for each sample."""
        if not self.endpoint.split or ask.n == 1:
            return self._tried(ask, 0, lines, deadline)
        parts = [self._tried(ask, place, lines, deadline) for place in range(ask.n)]
        attempts, seconds = sum(part.attempts for part in parts), sum(part.seconds for part in parts)
        failed = next((part.failure for part in parts if part.failure), "")
        samples = () if failed else tuple(part.samples[0] for part in parts)
        return Answer(samples, failed, attempts - ask.n + 1, seconds)

    def _tried(self, ask: Ask, place: int, lines: _Lines, deadline: float) -> Answer:
        began = time.monotonic()
        path, body = _request(self.endpoint, ask, place)
        secret, failure = _key(self.endpoint), ""
        for attempt in range(1, self.endpoint.attempts + 1):
            left = deadline - time.monotonic()
            if left <= 0 or lines.over:
                return Answer((), failure or "no time left", attempt - 1, time.monotonic() - began)
            pause: float | None = None
            try:
                status, data, pause = lines.send(path, body, min(self.endpoint.timeout, left))
            except TimeoutError:
                failure = f"timeout: no reply in {min(self.endpoint.timeout, left):.3g} s"
            except (OSError, http.client.HTTPException, ValueError) as problem:
                failure = f"connection: {_clean(problem, secret)}"
            else:
                if status == 200:
                    wanted = 1 if self.endpoint.split else ask.n
                    samples, failure = _samples(data, wanted, bool(ask.messages))
                    return Answer(samples, failure, attempt, time.monotonic() - began)
                failure = f"HTTP {status}: {_said(data, secret)}"
                if status not in _AGAIN:
                    return Answer((), failure, attempt, time.monotonic() - began)
            if attempt < self.endpoint.attempts:
                self._wait(attempt, pause, deadline, lines)
        return Answer((), failure, self.endpoint.attempts, time.monotonic() - began)

    def _wait(self, attempt: int, asked: float | None, deadline: float, lines: _Lines) -> None:
        """Half to all of a pause that doubles (so that many clients do not come back together), or what was asked."""
        pause = min(_LAST_PAUSE, self.endpoint.pause * 2 ** (attempt - 1))
        pause = pause * self._jitter.uniform(0.5, 1.0) if asked is None else asked
        pause = max(0.0, min(pause, deadline - time.monotonic()))
        with self._lock:
            self.traffic.paused += pause
        lines.stop.wait(pause)


class _Lines:
    """Connections, one for each thread, kept open between requests; all can be cut from outside."""

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        assert parts.hostname is not None
        self._endpoint, self._host, self._port, self._base = endpoint, parts.hostname, parts.port, parts.path
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []
        self.stop = threading.Event()

    @property
    def over(self) -> bool:
        return self.stop.is_set()

    def send(self, path: str, body: bytes, seconds: float) -> tuple[int, bytes, float | None]:
        """(status, body, seconds that the server asks to wait). Raises OSError, HTTPException, ValueError."""
        deadline = time.monotonic() + seconds
        reused = getattr(self._own, "line", None) is not None
        try:
            return self._exchange(path, body, deadline)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self._drop()
            if not reused:
                raise
            return self._exchange(path, body, deadline)  # a kept connection that the server had closed meanwhile
        except BaseException:
            self._drop()
            raise

    def _exchange(self, path: str, body: bytes, deadline: float) -> tuple[int, bytes, float | None]:
        line = self._line(deadline)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = _key(self._endpoint)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        line.request("POST", self._base + path, body, headers)
        response = line.getresponse()
        parts, size = [], 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                raise ValueError(f"a reply of more than {LONGEST >> 20} MiB")
            _limit(line, deadline)
        response.close()  # read1 leaves it open at its end, and the connection with it
        if response.will_close:
            self._drop()
        wait_for = response.headers.get("Retry-After", "")
        return response.status, b"".join(parts), float(wait_for) if re.fullmatch(r"\d{1,4}", wait_for) else None

    def _line(self, deadline: float) -> http.client.HTTPConnection:
        line: http.client.HTTPConnection | None = getattr(self._own, "line", None)
        if line is None:
            line = self._kind(self._host, self._port, timeout=max(0.001, deadline - time.monotonic()))
            line.connect()
            self._own.line = line
            self._all.append(line)
        _limit(line, deadline)
        if self.over:
            raise OSError("stopped")
        return line

    def _drop(self) -> None:
        line = getattr(self._own, "line", None)
        if line is not None:
            self._own.line = None
            line.close()

    def cut(self) -> None:
        self.stop.set()
        for line in list(self._all):
            with suppress(OSError):
                if line.sock is not None:
                    line.sock.shutdown(socket.SHUT_RDWR)


def _limit(line: http.client.HTTPConnection, deadline: float) -> None:
    """A socket's timeout is of one read: a server that sends a byte a second would never meet it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if line.sock is not None:
        line.sock.settimeout(left)


def _key(endpoint: Endpoint) -> str | None:
    if endpoint.key is None:
        return None
    key = os.environ.get(endpoint.key, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {endpoint.key} is not set: it must hold the key of {endpoint.url}")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"the environment variable {endpoint.key} holds no key: other than printable ASCII")
    return key


def _request(endpoint: Endpoint, ask: Ask, place: int) -> tuple[str, bytes]:
    """Path and body. Sample `place` of a split request has the seed `seed + place`."""
    body: dict[str, Any] = {"model": endpoint.model, "max_tokens": ask.max_tokens, "temperature": ask.temperature}
    body["n"] = 1 if endpoint.split else ask.n
    if ask.top_p is not None:
        body["top_p"] = ask.top_p
    if ask.seed is not None:
        body["seed"] = ask.seed + place
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.messages:
        body["messages"] = [message.plain() for message in ask.messages]
        if ask.logprobs:
            body["logprobs"] = True
    else:
        body["prompt"] = ask.text
        if ask.logprobs:
            body["logprobs"] = 0
    path = "/chat/completions" if ask.messages else "/completions"
    return path, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _samples(data: bytes, n: int, chat: bool) -> tuple[tuple[Sample, ...], str]:
    """The choices of a reply, or why it is not understood. The server is a stranger: every value is looked at."""
    try:
        value = json.loads(data)
        choices = sorted(value["choices"], key=lambda choice: int(choice.get("index", 0)))
        samples = tuple(_sample(choice, chat) for choice in choices)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        return (), f"not understood: {type(problem).__name__} in the server's reply"
    if len(samples) != n:
        return (), f"not understood: {n} samples were asked for and {len(samples)} came (split=true asks one by one)"
    return samples, ""


def _sample(choice: dict[str, Any], chat: bool) -> Sample:
    text = choice["message"]["content"] if chat else choice["text"]
    if text is None:
        text = ""  # a reply of nothing but a tool call or a refusal
    if not isinstance(text, str):
        raise TypeError("no text")
    found = choice.get("logprobs")
    tokens = logp = None
    if found and chat and found.get("content") is not None:
        tokens = tuple(str(item["token"]) for item in found["content"])
        logp = tuple(float(item["logprob"]) for item in found["content"])
    elif found and not chat and found.get("token_logprobs") is not None:
        tokens = tuple(map(str, found["tokens"]))
        logp = tuple(float(value) for value in found["token_logprobs"])
    return Sample(text, str(choice.get("finish_reason")), tokens, logp)


def _said(data: bytes, secret: str | None) -> str:
    """The beginning of an error's text."""
    text = data[:2000].decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(data)["error"]["message"])
    return _clean(text, secret)


def _clean(text: object, secret: str | None) -> str:
    """One short line without control characters, and without our key: servers quote it when they refuse it."""
    line = str(text) if secret is None else str(text).replace(secret, "***")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in line).split())[:200]
