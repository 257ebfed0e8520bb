"""Best of n: what a policy's answers are worth when a reward model picks one of n (SPEC J.1)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.errors import ArtefactError, DataError
from fledge.core.progress import progress
from fledge.core.readers import read_records
from fledge.core.records import Task
from fledge.reward import verifiers
from fledge.reward.quality import best_of_n

MOST_ROWS = 128  # answers generated side by side


class BestOfConfig(core_config.Config):
    policy: Path = Field(description="folder of the model that answers")
    tasks: Path = Field(description="tasks, whose verifiers say what an answer is truly worth")
    prompts: int = Field(default=64, gt=0, description="the first so many of them")
    samples: int = Field(default=16, ge=2, description="answers a prompt; the curve goes up to this n")
    max_new_tokens: int = Field(default=128, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    seed: int = 0


def read_best_of(config: BestOfConfig, tokenized_as: Path) -> list[Task]:
    """The tasks. Raises, before any work, for one that cannot be scored, and for a policy with other ids than the model
    at ``tokenized_as``."""
    from fledge.tokenizer.tokenizer import ids_hash

    if ids_hash(config.policy) != ids_hash(tokenized_as):
        raise ArtefactError(f"best_of.policy={config.policy}: has another tokenizer than {tokenized_as}")
    tasks = list(read_records(config.tasks, Task))[: config.prompts]
    for task in tasks:
        verifiers.require(task)
    if not tasks:
        raise DataError(f"{config.tasks}: holds no tasks")
    return tasks


def measure_best_of(config: BestOfConfig, folder: Path) -> dict[str, Any]:
    """``chosen``: expected score of the best of n by the reward model in ``folder``; ``oracle``: by the verifier, the
    most that choosing can give; ``reward``: expected reward of that best one, and ``kl``: ln n - (n-1)/n, how far it is
    from the policy. A reward that rises with kl while ``chosen`` falls is over-optimisation (Gao et al. 2022,
    2210.10760, figure 1). Keys of each: n, the powers of 2 up to ``samples``."""
    from fledge.generate.engine import Engine, Request
    from fledge.generate.loaded import load
    from fledge.generate.sampling import Sampling
    from fledge.reward.model import RewardModel
    from fledge.tokenizer.chat import encode_prompt

    tasks, model, policy = read_best_of(config, folder), RewardModel(folder, config.policy), load(config.policy)
    stops = (policy.tokenizer.im_end, policy.tokenizer.endoftext)
    requests = []
    for place, task in enumerate(tasks):
        seed = int(np.random.SeedSequence([config.seed, place]).generate_state(1)[0])
        sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=seed)
        requests.append(Request(encode_prompt(policy.tokenizer, task.messages), config.samples, sampling, stops))
    with progress("best of n", len(tasks) * config.samples, "answers") as bar:
        answers = Engine((policy.decoder, policy.tokenizer), max_rows=MOST_ROWS).generate(requests, bar.advance)
    every = [(k, answer.tokens) for k, group in enumerate(answers) for answer in group]
    judged = verifiers.score_many([(tasks[k], policy.tokenizer.decode(tokens)) for k, tokens in every])
    scores = np.array([score.value for score in judged]).reshape(len(tasks), -1)
    given = model.score([(requests[k].prompt, tokens) for k, tokens in every]).astype(np.float64)
    # what does not fit the context is chosen last
    rewards = np.where(np.isnan(given), np.nanmin(given), given).reshape(len(tasks), -1)
    sizes = [2**k for k in range(config.samples.bit_length())]
    pairs = {"chosen": (rewards, scores), "oracle": (scores, scores), "reward": (rewards, rewards)}
    return {
        "prompts": len(tasks), "samples": config.samples, "unscored": int(np.isnan(given).sum()),
        **{name: {str(n): v for n, v in best_of_n(*pair, sizes).items()} for name, pair in pairs.items()},
        "kl": {str(n): math.log(n) - (n - 1) / n for n in sizes},
    }  # fmt: skip
