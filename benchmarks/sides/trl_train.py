"""The peer: TRL's trainers. JOB: sft, reward, dpo, dpo-live, grpo, rloo, online-dpo, ppo. Defaults are TRL's own; --set
changes its arguments. PPO is in TRL up to 1.12.

    python benchmarks/sides/trl_train.py sft --size tiny8k --set gradient_checkpointing=False
"""

from __future__ import annotations

import argparse
import ast
import tempfile
import time
from pathlib import Path
from typing import Any

import trl_online
import work

ONLINE = {"grpo": trl_online.grouped, "rloo": trl_online.grouped, "online-dpo": trl_online.online_dpo,
          "ppo": trl_online.ppo}  # fmt: skip


def main() -> None:
    arguments = parse()
    work.quiet()
    import torch
    from transformers import AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM, Qwen2ForSequenceClassification

    folder = work.model_folder(arguments.size)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: PreTrainedModel
    if arguments.job == "reward":
        model = Qwen2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32, num_labels=1)
    else:
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = arguments.warmup + arguments.steps
    with tempfile.TemporaryDirectory() as place:
        common: dict[str, Any] = {
            "output_dir": place, "max_steps": total, "use_cpu": True, "report_to": "none", "save_strategy": "no",
            "logging_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-4, "seed": 0,
            "lr_scheduler_type": "constant",
        }  # fmt: skip
        clock = make_clock()
        if arguments.job in ONLINE:
            trainer = ONLINE[arguments.job](arguments, {**common, **changes(arguments)}, model, tokenizer, clock)
        else:
            make = {"sft": sft, "reward": reward_model, "dpo": dpo, "dpo-live": dpo}[arguments.job]
            trainer = make(arguments, common, model, tokenizer, clock, Path(place))
        tokens = count_tokens(trainer) if arguments.job == "sft" else []
        trainer.train()
    seconds = clock.seconds[arguments.warmup :]
    facts: dict[str, Any] = {}
    if arguments.job == "sft":
        real, padded = (sum(pair[i] for pair in tokens[arguments.warmup : total]) for i in (0, 1))
        rate, facts = real / sum(seconds), {"real_tokens": real, "padded_tokens": padded}
    elif arguments.job in ONLINE:
        rate = work.median(seconds)  # seconds a step
    else:
        rate = arguments.batch / work.median(seconds)
    work.report(
        rate, clock.first, ("torch", "transformers", "trl"), threads=torch.get_num_threads(),
        bf16=bool(trainer.args.bf16), gradient_checkpointing=bool(trainer.args.gradient_checkpointing),
        step_seconds=[round(s, 4) for s in seconds], **facts,
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("job", choices=["sft", "reward", "dpo", "dpo-live", *ONLINE])
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--batch", type=int, default=8, help="conversations, pairs or prompts a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--samples", type=int, default=8, help="answers a prompt (online jobs)")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--lora", type=int, default=0, help="sft with peft's adapters of this rank, all else frozen")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of TRL's configuration")
    return parser.parse_args()


def changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --set gives; values are Python's, or text."""
    result: dict[str, Any] = {}
    for given in arguments.set:
        key, _, value = given.partition("=")
        try:
            result[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            result[key] = value
    return result


def make_clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.first = 0.0

        # from the end of a step to the end of the next: what the loader takes belongs to it, as it does for ours
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.mark = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            self.seconds.append(now - self.mark)
            self.mark = now
            self.first = self.first or work.since_start()

    return Clock()


def sft(arguments: argparse.Namespace, common: dict[str, Any], model: Any, tokenizer: Any, clock: Any, _: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    count = arguments.batch * (arguments.warmup + arguments.steps)
    rows = [{"prompt": work.as_text(prompt), "completion": answer} for prompt, answer in work.conversations(count)]
    values = {**common, "per_device_train_batch_size": arguments.batch, **changes(arguments)}
    adapters: dict[str, Any] = {}
    if arguments.lora:
        from peft import LoraConfig

        shape: dict[str, Any] = {"r": arguments.lora, "lora_alpha": 2 * arguments.lora, "target_modules": "all-linear"}
        adapters["peft_config"] = LoraConfig(**shape, task_type="CAUSAL_LM")
    return SFTTrainer(
        model=model, args=SFTConfig(**values), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[clock], **adapters,
    )  # fmt: skip


def pairs(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """As many as the run takes, as text."""
    count = arguments.batch * (arguments.warmup + arguments.steps)
    return [
        {"prompt": work.as_text(prompt), "chosen": chosen, "rejected": rejected}
        for prompt, chosen, rejected in work.pairs(count, arguments.length, arguments.new)
    ]


def reward_model(
    arguments: argparse.Namespace, common: dict[str, Any], model: Any, tokenizer: Any, clock: Any, place: Path
) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = pairs(arguments)
    values = {**common, "per_device_train_batch_size": arguments.batch, **changes(arguments)}
    trainer = RewardTrainer(
        model=model, args=RewardConfig(**values), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[clock],
    )  # fmt: skip
    prepared: Any = trainer.train_dataset
    found = tuple(len(prepared[0][key]) for key in ("chosen_ids", "rejected_ids"))
    assert found == (arguments.length + arguments.new,) * 2, f"tokens of a pair: {found}"
    return trainer


def dpo(
    arguments: argparse.Namespace, common: dict[str, Any], model: Any, tokenizer: Any, clock: Any, place: Path
) -> Any:
    """dpo: the reference computed before training; dpo-live: by a second model in every step, TRL's default."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = pairs(arguments)
    values = {
        **common, "per_device_train_batch_size": arguments.batch,
        "precompute_ref_log_probs": arguments.job == "dpo", **changes(arguments),
    }  # fmt: skip
    trainer = DPOTrainer(
        model=model, args=DPOConfig(**values), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[clock],
    )  # fmt: skip
    prepared: Any = trainer.train_dataset
    first = prepared[0]
    found = tuple(len(first[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids"))
    assert found == (arguments.length, arguments.new, arguments.new), f"tokens of a pair: {found}"
    return trainer


def count_tokens(trainer: Any) -> list[tuple[int, int]]:
    """(real, padded) tokens of every optimizer step, filled while it trains."""
    found: list[tuple[int, int]] = []
    collate, micro = trainer.data_collator, trainer.args.gradient_accumulation_steps
    batches: list[tuple[int, int]] = []

    def counted(features: Any) -> Any:
        batch = collate(features)
        padded = batch["input_ids"].numel()
        real = int(batch["attention_mask"].sum()) if "attention_mask" in batch else padded
        batches.append((real, padded))
        if len(batches) % micro == 0:
            last = batches[-micro:]
            found.append((sum(r for r, _ in last), sum(p for _, p in last)))
        return batch

    trainer.data_collator = counted
    return found


if __name__ == "__main__":
    main()
