"""A step of RLOO, online DPO and PPO, sampling, rewards and updates: ours against TRL, seconds a step.

    python benchmarks/online.py [--rounds 3] [--only PPO] [--tokens 64] [--steps 1] [--quick]

RLOO: 8 prompts with 8 answers, the reward is the same function on both sides, KL in the reward (TRL's default). Online
DPO: 8 prompts with 2 answers, which is what TRL makes, the better and the worse told apart by a reward model. PPO, from
the last TRL that has it: 8 prompts with 2 answers (in TRL's data each prompt is there twice, since it gives each one
answer), reward model, value model and reference, then 4 updates on all of the rollout, TRL's defaults. The reward model
has random weights, the same on both sides; TRL's PPO reads it at an answer's last token, ours at the end token.
"""

from __future__ import annotations

import sys

from beside_trl import ours, peers
from pair import Row, main, parser


def row(job: str, name: str, samples: int, tokens: int, steps: int, environment: str = "hf") -> Row:
    work = (job, "--size", "tiny8k", "--batch", "8", "--samples", str(samples), "--length", str(tokens),
            "--new", str(tokens), "--steps", str(steps), "--warmup", "1")  # fmt: skip
    sizes = ("tiny8k", "tiny8k-reward")
    columns = peers(work, environment=environment)
    title = f"{name} step 8x{samples}, {tokens}+{tokens}"
    return Row(title, "s/step", ours(work), columns, sizes, lower=True)


if __name__ == "__main__":
    words = parser(__doc__)
    words.add_argument("--tokens", type=int, default=128, help="of a prompt, and of an answer")
    words.add_argument("--steps", type=int, default=2, help="timed steps of a process")
    arguments = words.parse_args()
    tokens, steps = arguments.tokens, 1 if arguments.quick else arguments.steps
    rows = [
        row("rloo", "RLOO", 8, tokens, steps),
        row("online-dpo", "online DPO", 2, tokens, steps),
        row("ppo", "PPO", 2, tokens, steps, environment="ppo"),
    ]
    sys.exit(main("online", rows, arguments))
