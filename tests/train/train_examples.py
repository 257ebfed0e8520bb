"""Hand-made examples for the tests of losses and gradients."""

from __future__ import annotations

import numpy as np

from fledge.train.batch import Example, Segment, single

VOCABULARY = 97


def tokens(generator: np.random.Generator, length: int) -> np.ndarray:
    return generator.integers(0, VOCABULARY, length).astype(np.int32)


def documents(count: int = 9, seed: int = 0) -> list[Example]:
    generator = np.random.default_rng(seed)
    result = []
    for index in range(count):
        ids = tokens(generator, int(generator.integers(2, 40)))
        weight = (generator.random(len(ids)) < 0.7).astype(np.float32)
        weight[0], weight[-1] = 0, 1
        result.append(single(ids, weight, (f"document {index}", 0)))
    return result


def pairs(count: int = 6, seed: int = 1, shared: bool = True) -> list[Example]:
    """Preference pairs with a reference column; the prompt computed once, or repeated for each answer."""
    generator = np.random.default_rng(seed)
    result = []
    for index in range(count):
        prompt = tokens(generator, int(generator.integers(3, 12)))
        answers = [tokens(generator, int(generator.integers(1, 15))) for _ in range(2)]
        references = [generator.normal(-4, 1, len(a)).astype(np.float32) for a in answers]
        sides = [{"side": 1.0}, {"side": -1.0}]
        result.append(family(prompt, answers, [{"reference": r} for r in references], sides, {}, shared, str(index)))
    return result


def groups(
    count: int = 4, samples: int = 3, seed: int = 2, shared: bool = True, share: str = "grpo", near: float = 1.0
) -> list[Example]:
    """Groups of sampled answers with advantages and old log-probabilities, where ``near`` is small so near to those of
    a random model that not all ratios of whole answers are clipped."""
    generator, mean = np.random.default_rng(seed), -4.0 if near == 1 else -4.6
    result = []
    for index in range(count):
        prompt = tokens(generator, int(generator.integers(3, 12)))
        answers = [tokens(generator, int(generator.integers(1, 15))) for _ in range(samples)]
        columns = [
            {name: generator.normal(mean, near, len(a)).astype(np.float32) for name in ("old", "reference")}
            for a in answers
        ]
        values = [
            {"advantage": float(generator.normal()), "share": 1 / len(a) if share == "grpo" else 1.0} for a in answers
        ]
        counts = {"samples": float(samples), "sampled": float(sum(map(len, answers)))}
        result.append(family(prompt, answers, columns, values, counts, shared, str(index)))
    return result


def experience(count: int = 4, samples: int = 2, seed: int = 4, shared: bool = True) -> list[Example]:
    """Groups of sampled answers as PPO trains on them. Both clips are met by some tokens, not by others."""
    generator = np.random.default_rng(seed)
    result = []
    for index in range(count):
        prompt = tokens(generator, int(generator.integers(3, 12)))
        answers = [tokens(generator, int(generator.integers(1, 15))) for _ in range(samples)]
        columns = [
            {
                "old": generator.normal(-4.6, 0.3, len(a)).astype(np.float32),
                **{
                    name: generator.normal(0, 0.5, len(a)).astype(np.float32)
                    for name in ("advantage", "value", "return")
                },
            }
            for a in answers
        ]
        values = [{"answer": 1.0} for _ in answers]
        result.append(family(prompt, answers, columns, values, {}, shared, str(index)))
    return result


def rankings(count: int = 5, seed: int = 4, shared: bool = True) -> list[Example]:
    """Two to four answers to a prompt, best first, with ties."""
    generator = np.random.default_rng(seed)
    result = []
    for index in range(count):
        ranks = [(1, 2), (1, 2, 2, 3), (1, 2, 3)][index % 3]
        prompt = tokens(generator, int(generator.integers(3, 12)))
        answers = [tokens(generator, int(generator.integers(1, 15))) for _ in ranks]
        pairs = sum(a < b for k, a in enumerate(ranks) for b in ranks[k + 1 :])
        values = [
            {"rank": float(rank), "first": float(k == 0), "worth": -0.5 * rank, "share": 1 / pairs}
            for k, rank in enumerate(ranks)
        ]
        result.append(family(prompt, answers, [{}] * len(ranks), values, {}, shared, str(index)))
    return result


def family(
    prompt: np.ndarray, answers: list[np.ndarray], columns: list[dict[str, np.ndarray]],
    values: list[dict[str, float]], counts: dict[str, float], shared: bool, name: str,
) -> Example:  # fmt: skip
    """A prompt with children, or the same as one root segment for each answer."""
    ones = [np.ones(len(a), np.float32) for a in answers]
    if shared:
        root = Segment(prompt, np.zeros(len(prompt), np.float32), values=counts, origin=(name, 0))
        children = [
            Segment(a, w, 0, c, v, (name, 1)) for a, w, c, v in zip(answers, ones, columns, values, strict=True)
        ]
        return Example((root, *children))
    segments = []
    for index, (answer, weight, column, value) in enumerate(zip(answers, ones, columns, values, strict=True)):
        padded = {key: np.concatenate([np.zeros(len(prompt), np.float32), c]) for key, c in column.items()}
        segments.append(
            Segment(
                np.concatenate([prompt, answer]), np.concatenate([np.zeros(len(prompt), np.float32), weight]),
                columns=padded, values={**value, **(counts if index == 0 else {})}, origin=(name, 0),
            )
        )  # fmt: skip
    return Example(tuple(segments))
