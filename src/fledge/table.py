"""The table of stages, in one place: what recipes and the command line can run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageType:
    module: str
    summary: str
    torch: bool = False  # computes with torch, so the machine's switches are set before it
    trains: bool = False  # has a model as its result, and torchrun may start it as several ranks
    speaks: bool = True  # the model that it trains generates text


# The table of stages: name -> the module that has `Config` and `run(config, out, redo)`. Imported when used.
STAGES: dict[str, StageType] = {
    "microworld": StageType("fledge.microworld.generate", "Generate the bilingual microworld: site, data, tests."),
    "records": StageType("fledge.stages.records", "Your own files to conversations, preferences or tasks."),
    "corpus": StageType("fledge.stages.corpus", "Pages to clean text, with a ledger of what was dropped and why."),
    "train-classifier": StageType("fledge.stages.classifier", "Train a classifier that tells sets of text apart."),
    "train-ngram": StageType("fledge.stages.ngram", "Count an n-gram model, whose perplexity is a value of a page."),
    "tokenizer": StageType("fledge.stages.tokenizer", "Train a byte-level BPE tokenizer on a corpus."),
    "shards": StageType("fledge.stages.shards", "Encode a corpus into token shards."),
    "mixture": StageType("fledge.scaling.mixture", "Find the shares of a mixture with small proxy models.", True),
    "pretrain": StageType("fledge.stages.pretrain", "Train a model on token shards.", True, True),
    "sft": StageType("fledge.stages.sft", "Supervised fine-tuning on conversations.", True, True),
    "pairs": StageType("fledge.stages.pairs", "Pairs: a strong model's answers chosen, a weak one's rejected.", True),
    "reward": StageType("fledge.stages.reward", "Train a reward model on ranked answers.", True, True, False),
    "dpo": StageType("fledge.stages.dpo", "Direct preference optimisation on pairs of answers.", True, True),
    "online-dpo": StageType("fledge.stages.online_dpo", "DPO on the best and the worst of own answers.", True, True),
    "ppo": StageType("fledge.stages.ppo", "Reinforcement learning with a value model, as Qwen1 did it.", True, True),
    "grpo": StageType("fledge.stages.grpo", "Reinforcement learning on tasks that a program verifies.", True, True),
    "evaluate": StageType("fledge.evaluate.stage", "Score a model on held-out tasks, with intervals.", True),
    "gate": StageType("fledge.evaluate.gate", "Compare two evaluations; stop where a skill has fallen."),
}

TRAINING = tuple(name for name, stage in STAGES.items() if stage.trains)
