"""The table of stages, in one place: what recipes and the command line can run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageType:
    module: str
    summary: str
    torch: bool = False  # computes with torch, so the machine's switches are set before it


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
    "pretrain": StageType("fledge.stages.pretrain", "Train a model on token shards.", True),
    "sft": StageType("fledge.stages.sft", "Supervised fine-tuning on conversations.", True),
    "dpo": StageType("fledge.stages.dpo", "Direct preference optimisation on pairs of answers.", True),
    "grpo": StageType("fledge.stages.grpo", "Reinforcement learning on tasks that a program verifies.", True),
    "evaluate": StageType("fledge.evaluate.stage", "Score a model on held-out tasks, with intervals.", True),
}
