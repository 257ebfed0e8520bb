"""Ours: training steps of fledge, from the same pieces as its stages. JOB: pretrain, sft, reward, dpo, dpo-live, grpo,
rloo, online-dpo, ppo.

    python benchmarks/sides/fledge_train.py pretrain --size tiny8k --batch 8 --length 512
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fledge_online
import numpy as np
import torch
import work

from fledge.core.machine import compute_dtype, product_rate, set_switches
from fledge.core.records import Message
from fledge.corpus.writing.shards import TokenShards
from fledge.model.adapters import LoraConfig, add_adapters
from fledge.model.compiled import compile_model, compiled
from fledge.model.hf import load_decoder
from fledge.model.scalar import load_scalar
from fledge.stages import dpo
from fledge.stages.dialogues import Account, pair_example, read_conversations
from fledge.stages.pretrain import Documents
from fledge.stages.rankings import ranking_example
from fledge.stages.reference import attach
from fledge.stages.reward import BradleyTerry
from fledge.stages.sft import Shuffled
from fledge.tokenizer.chat import encode_prompt, encode_reply
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, pack, single
from fledge.train.loop import GlobalBatch, Loop, LoopConfig, Source
from fledge.train.objective import Likelihood, Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.scoring import reference_logp
from fledge.train.trainee import Trainee

OFFLINE = ("pretrain", "sft", "reward", "dpo", "dpo-live")
ONLINE = ("grpo", "rloo", "online-dpo", "ppo")


@dataclass(frozen=True)
class Job:
    """What the loop trains on, what learns beside the policy, and how many updates a step has."""

    source: Source
    objective: Objective
    beside: dict[str, Trainee] = field(default_factory=dict)
    updates: int = 1


class RandomIds:
    """Source: fresh random ids each step."""

    def __init__(self, batch: int, length: int, vocabulary: int) -> None:
        self.batch, self.length, self.vocabulary = batch, length, vocabulary

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        weight = np.ones(self.length, np.float32)
        weight[0] = 0.0
        rows = work.ids(step, self.batch, self.length, self.vocabulary)
        return GlobalBatch([single(row, weight) for row in rows])

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class LiveReference:
    """Source: pairs whose reference is computed anew in every step, by a frozen model that stays in memory."""

    def __init__(self, inner: Shuffled, folder: Path, dtype: torch.dtype, micro_tokens: int) -> None:
        self.inner, self.dtype, self.micro_tokens = inner, dtype, micro_tokens
        self.frozen = load_decoder(folder).to(dtype)

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        batch = self.inner.next(step, models)
        flat = reference_logp(batch.examples, self.frozen, self.dtype, self.micro_tokens)
        return replace(batch, examples=attach(batch.examples, "reference", flat))

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.inner.load_state(state)


class Clock:
    """Source: another one, with the seconds that it took and the tokens that it gave, a step each."""

    def __init__(self, inner: Source) -> None:
        self.inner = inner
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.last: list[Example] = []
        self.metrics: Mapping[str, float] = {}

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        started = time.perf_counter()
        batch = self.inner.next(step, models)
        self.seconds.append(time.perf_counter() - started)
        self.tokens.append(sum(example.tokens for example in batch.examples))
        self.last, self.metrics = list(batch.examples), batch.metrics
        return batch

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.inner.load_state(state)


def main() -> None:
    arguments = parse()
    # as a stage does for any run that is long enough to pay for it
    compile_model(arguments.compile == "on", compute_dtype(arguments.dtype))
    switches = {**set_switches(), "compiled": compiled()}
    dtype = compute_dtype(arguments.dtype)
    folder = work.model_folder(arguments.size)
    decoder = load_scalar(folder) if arguments.job == "reward" else load_decoder(folder)
    if arguments.lora:
        add_adapters(decoder, LoraConfig(r=arguments.lora, alpha=2.0 * arguments.lora), 0)
    with tempfile.TemporaryDirectory() as place:
        job = make(arguments, folder, dtype, Path(place))
        source = Clock(job.source)
        trainee = Trainee(decoder, OptimizerConfig(lr=1e-4), dtype, recompute=arguments.recompute)
        total = (arguments.warmup + arguments.steps) * job.updates
        config = LoopConfig(micro_tokens=arguments.micro_tokens, tensorboard=False)
        loop = Loop(config, {"policy": trainee, **job.beside}, source, job.objective, total, Path(place), "")

        def step(number: int) -> None:
            for update in range(job.updates):
                loop.step(number * job.updates + update)

        seconds, first = work.timed(step, arguments.steps, arguments.warmup)
    before = arguments.warmup * job.updates
    counted = source.tokens[before:]
    rate = {
        "pretrain": work.median(counted) / work.median(seconds),
        "sft": sum(counted) / sum(seconds),  # steps are not alike
        **dict.fromkeys(ONLINE, work.median(seconds)),  # seconds a step
    }.get(arguments.job, arguments.batch / work.median(seconds))
    facts = loader(source, before, seconds)
    if arguments.job in ONLINE:
        facts["sampled"] = {key: source.metrics[key] for key in ("answer_tokens", "left_out", "reward")}
    if arguments.job == "pretrain":
        reached = rate * work.train_flops(arguments.size, arguments.length) / 1e9
        facts |= {"gflops": reached, "machine_gflops": product_rate(str(dtype).removeprefix("torch."), 2048, 1.0)}
    work.report(
        rate, first, ("fledge", "torch"), dtype=str(dtype).removeprefix("torch."), switches=switches,
        threads=torch.get_num_threads(), step_seconds=[round(s, 4) for s in seconds], tokens=counted, **facts,
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("job", choices=[*OFFLINE, *ONLINE])
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--batch", type=int, default=8, help="segments, conversations, pairs or prompts a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a segment or of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--samples", type=int, default=8, help="answers a prompt (online jobs)")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--micro-tokens", type=int, default=LoopConfig().micro_tokens)
    parser.add_argument("--shards", type=Path, help="pretrain from token shards instead of fresh random ids")
    parser.add_argument("--recompute", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--lora", type=int, default=0, help="adapters of this rank on all projections alone")
    parser.add_argument("--compile", default="on", choices=["on", "off"], help="the passes between products")
    return parser.parse_args()


def make(arguments: argparse.Namespace, folder: Path, dtype: torch.dtype, place: Path) -> Job:
    """The stage's source of batches and its objective."""
    if arguments.shards:
        step = arguments.batch * arguments.length
        return Job(Documents(TokenShards(arguments.shards), arguments.length, step, 0), Likelihood())
    if arguments.job == "pretrain":
        rows = work.shape(arguments.size)["vocab_size"]
        return Job(RandomIds(arguments.batch, arguments.length, rows), Likelihood())
    tokenizer = Tokenizer.load(folder)
    count = arguments.batch * (arguments.warmup + arguments.steps)
    if arguments.job == "sft":
        return Job(Shuffled(conversations(count, tokenizer, place), arguments.batch, 0), Likelihood())
    if arguments.job in ONLINE:
        return online(arguments, tokenizer, folder, dtype)
    examples = []
    for index, (prompt, chosen, rejected) in enumerate(work.pairs(count, arguments.length, arguments.new)):
        head = encode_prompt(tokenizer, [Message(role="user", content=prompt)])
        answers = [encode_reply(tokenizer, text) for text in (chosen, rejected)]
        assert len(head) == arguments.length, f"a prompt of {len(head)} tokens"
        assert all(len(answer) == arguments.new for answer in answers)
        if arguments.job == "reward":
            examples.append(ranking_example(head, answers, [1, 2], [0.0, 0.0], str(index)))
        else:
            examples.append(pair_example(head, answers[0], answers[1], str(index)))
    if arguments.job == "reward":
        return Job(Shuffled(examples, arguments.batch, 0), BradleyTerry())
    if arguments.job == "dpo":
        flat = reference_logp(examples, load_decoder(folder), dtype, arguments.micro_tokens)
        return Job(Shuffled(attach(examples, "reference", flat), arguments.batch, 0), dpo.Dpo(0.1))
    shuffled = Shuffled(examples, arguments.batch, 0)
    return Job(LiveReference(shuffled, folder, dtype, arguments.micro_tokens), dpo.Dpo(0.1))


def online(arguments: argparse.Namespace, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype) -> Job:
    """Groups, pairs or rollouts sampled from the policy in training."""
    if arguments.job == "ppo":
        return Job(*fledge_online.actor_critic(arguments, tokenizer, folder, dtype))
    make_source = fledge_online.contests if arguments.job == "online-dpo" else fledge_online.groups
    return Job(*make_source(arguments, tokenizer, folder, dtype))


def conversations(count: int, tokenizer: Tokenizer, place: Path) -> list[Example]:
    path = place / "sft.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for prompt, answer in work.conversations(count):
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return read_conversations([path], tokenizer, "response", 4096, "fail", Account())


def loader(source: Clock, warmup: int, seconds: list[float]) -> dict[str, Any]:
    """What a step waits for its batch: source and packing, the latter timed by packing the last batch once more."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        pack(source.last)
        times.append(time.perf_counter() - started)
    waited = work.median(source.seconds[warmup:]) + work.median(times)
    return {
        "source_seconds": round(work.median(source.seconds[warmup:]), 5),
        "pack_seconds": round(work.median(times), 5),
        "loader_share": round(waited / work.median(seconds), 5),
    }


if __name__ == "__main__":
    main()
