"""How far each path is from the same formulas in float64, and bf16 training from float32 training.

    python benchmarks/numerics.py [--steps 500]

The model is a random one whose blocks are scaled up, so that attention and the gate matter. Log-probabilities: root
mean square of the difference, in nats. Gradients: norm of the difference over the norm, all parameters together.
Training: bytes of the standard library's source, a small model, the same batches; the mean loss of the last 50 steps.
Writes benchmarks/results/numerics.json and the tables of docs/numerics.md.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from write_docs import fill

from fledge.core.artefact import hardware, versions
from fledge.core.machine import machine, set_switches
from fledge.core.progress import progress
from fledge.generate.engine import Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.compiled import compile_model
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.layout import Layout
from fledge.train.batch import Example, PackedBatch, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "numerics.json"
DOCS = ROOT / "docs" / "numerics.md"
LENGTHS = (37, 512, 5, 200, 300, 129)
LONG = (1100, 400)  # a root of 1,024 tokens or more goes to torch's fused kernel
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    switches = set_switches()
    rows = [*paths("segments to 512", LENGTHS), *paths("a segment of 1,100", LONG), *decoding()]
    losses = training(arguments.steps)
    facts = {
        "machine": hardware(), "compute": machine().plain(), "versions": versions(), "switches": switches,
        "paths": rows, "training": losses, "steps": arguments.steps,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_docs(facts)


def write_docs(facts: Row) -> None:
    compute = facts["compute"]
    text = DOCS.read_text(encoding="utf-8")
    bf16 = f"bf16 by {compute['bf16']}" if compute["bf16"] else "no bf16 instructions"
    text = fill(
        text, "machine", f"{compute['cpu']}, {compute['cores']} cores, {bf16}; torch {facts['versions']['torch']}."
    )
    head = "| path | products in | log-probabilities, nats | gradients, relative |\n|---|---|---|---|\n"
    lines = [
        f"| {r['path']} | {r['dtype']} | {r['logp']:.1e} | {r['gradient']:.1e} |" if "gradient" in r
        else f"| {r['path']} | {r['dtype']} | {r['logp']:.1e} | |" for r in facts["paths"]
    ]  # fmt: skip
    text = fill(text, "paths", head + "\n".join(lines))
    head = f"| products in | model | last 50 of {facts['steps']} steps, loss | against float32 |\n|---|---|---|---|\n"
    base = facts["training"][0]["loss"]
    lines = [f"| {r['dtype']} | {r['model']} | {r['loss']:.4f} | {r['loss'] - base:+.4f} |" for r in facts["training"]]
    DOCS.write_text(fill(text, "training", head + "\n".join(lines)), encoding="utf-8")


def decoder_of(seed: int = 0) -> Decoder:
    """6.5M parameters; blocks of a fresh model hardly change what passes through, so they are scaled up."""
    decoder = Decoder(
        DecoderConfig(
            vocab_size=8192, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64,
        )
    )  # fmt: skip
    decoder.initialise(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".layers." in name and parameter.ndim == 2:
                parameter.mul_(6)
    return decoder


def examples_of(lengths: tuple[int, ...]) -> list[Example]:
    rng = np.random.default_rng(0)
    weight = lambda n: np.concatenate([np.zeros(1, np.float32), np.ones(n - 1, np.float32)])  # noqa: E731
    return [single(rng.integers(0, 8192, n), weight(n)) for n in lengths]


def paths(name: str, lengths: tuple[int, ...]) -> list[Row]:
    """Training's forward and backward, packed, as it stands (torch's operations) and compiled."""
    examples = examples_of(lengths)
    wanted, gradient = literal(decoder_of(), pack(examples))
    rows = []
    for kind, dtype in DTYPES.items():
        for compiled in (False, True):
            if compile_model(compiled):
                continue
            batch = pack(examples)  # which path attention takes is decided here
            trainee = Trainee(decoder_of(), OptimizerConfig(lr=1e-3), dtype)
            logp = trainee.logp(batch)
            objective = Likelihood()
            loss, _, _ = trainee.loss(batch, objective, objective.denominators(examples))
            loss.backward()
            trainee.collect()
            got = torch.cat([p.grad.flatten().double() for p in trainee.decoder.parameters() if p.grad is not None])
            error = float((got - gradient).norm() / gradient.norm())
            shown = f"{name}, {'compiled' if compiled else 'as it stands'}"
            rows.append({"path": shown, "dtype": kind, "logp": rms(logp.double() - wanted), "gradient": error})
    compile_model(False)
    return rows


def decoding() -> list[Row]:
    """What the engine says of its own samples, against float64 on the same tokens."""
    rows = []
    prompt = examples_of((200,))[0].segments[0].tokens.tolist()
    for native in (False, True):
        for kind, dtype in DTYPES.items():
            decoder = decoder_of()
            engine = Engine((decoder.to(dtype), None), compile=native)
            sampling = Sampling(temperature=1.0, max_new_tokens=64, seed=0)
            for few in (1, 12):
                sample = engine.generate([Request(prompt, n=few, sampling=sampling)])[0]
                batch = pack([answer(prompt, c.tokens) for c in sample])
                wanted, _ = literal(decoder_of(), batch)
                said = torch.tensor([x for c in sample for x in c.model_logp], dtype=torch.float64)
                name = f"decoding, {few} row{'s' * (few > 1)}, {'our loops' if native else 'torch'}"
                rows.append({"path": name, "dtype": kind, "logp": rms(said - wanted)})
    return rows


def answer(prompt: list[int], tokens: list[int]) -> Example:
    weight = np.concatenate([np.zeros(len(prompt), np.float32), np.ones(len(tokens), np.float32)])
    return single([*prompt, *tokens], weight)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def literal(decoder: Decoder, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """The formulas of SPEC A.4 as they are written, in float64: log-probability of each trained token, and the
    gradient of their mean negative as one vector in the order of the parameters."""
    config, layout = decoder.config, batch.layout
    weights = {name: p.detach().double().requires_grad_() for name, p in decoder.named_parameters()}
    see = torch.from_numpy(layout.visible())
    turn = angles(layout, config)
    x = weights["model.embed_tokens.weight"][batch.tokens[: len(see)]]
    for i in range(config.num_hidden_layers):
        of = lambda name, i=i: weights[f"model.layers.{i}.{name}"]  # noqa: E731
        y = normal(x, of("input_layernorm.weight"), config.rms_norm_eps)
        q, k, v = (
            F.linear(y, of(f"self_attn.{n}_proj.weight"), of(f"self_attn.{n}_proj.bias"))
            .view(len(x), -1, config.head_dim) for n in "qkv"
        )  # fmt: skip
        q, k = turn(q), turn(k)
        k, v = (z.repeat_interleave(q.shape[1] // z.shape[1], 1) for z in (k, v))
        scores = torch.einsum("iqd,jqd->qij", q, k) / config.head_dim**0.5
        mixed = torch.einsum("qij,jqd->iqd", scores.masked_fill(~see, float("-inf")).softmax(-1), v)
        x = x + F.linear(mixed.flatten(1), of("self_attn.o_proj.weight"))
        y = normal(x, of("post_attention_layernorm.weight"), config.rms_norm_eps)
        inner = F.silu(F.linear(y, of("mlp.gate_proj.weight"))) * F.linear(y, of("mlp.up_proj.weight"))
        x = x + F.linear(inner, of("mlp.down_proj.weight"))
    hidden = normal(x, weights["model.norm.weight"], config.rms_norm_eps)[batch.source]
    logits = F.linear(hidden, weights["model.embed_tokens.weight"])
    logp = logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    gradient = torch.autograd.grad(-logp.mean(), list(weights.values()))
    return logp.detach(), torch.cat([g.flatten() for g in gradient])


def normal(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def angles(layout: Layout, config: DecoderConfig) -> Callable[[Tensor], Tensor]:
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angle = torch.from_numpy(layout.positions).double()[:, None] / config.rope_theta**exponents
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def turn(x: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    return turn


def training(steps: int) -> list[Row]:
    """The same batches of bytes through the same small model, in each type."""
    data = np.frombuffer(
        b"".join(p.read_bytes() for p in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))), np.uint8
    )
    rows = []
    for kind, dtype in DTYPES.items():
        for compiled in (False, True):
            if compile_model(compiled):
                continue
            config = DecoderConfig(
                vocab_size=256, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, head_dim=32,
            )  # fmt: skip
            decoder = Decoder(config)
            decoder.initialise(0)
            trainee, objective, last = Trainee(decoder, OptimizerConfig(lr=3e-3), dtype), Likelihood(), []
            with progress(f"{kind} {'compiled' if compiled else ''}", steps, "steps") as bar:
                for step in range(steps):
                    rng = np.random.default_rng(step)
                    starts = rng.integers(0, len(data) - 256, 8)
                    examples = [answer(data[s : s + 1].tolist(), data[s + 1 : s + 256].tolist()) for s in starts]
                    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
                    loss.backward()
                    trainee.collect()
                    trainee.step(step, steps)
                    last.append(float(loss))
                    bar.advance(1, f"loss {last[-1]:.3f}")
            rows.append({"dtype": kind, "model": "compiled" if compiled else "as it stands",
                         "loss": float(np.mean(last[-50:]))})  # fmt: skip
    compile_model(False)
    return rows


if __name__ == "__main__":
    main()
