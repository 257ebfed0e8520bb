"""A watch on reward hacking: a measure that is not trained on must not fall while the reward rises (SPEC J.7).

rewards:
  - {kind: model, model: runs/x/reward}
  - {kind: verifier, name: held_out, weight: 0}     # seen by nobody but the guard
guard: {part: held_out}
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from fledge.core.config import Config
from fledge.core.errors import FledgeError


class GuardConfig(Config):
    part: str = Field(description="label of a part of the reward with weight 0: what is only watched")
    rollouts: int = Field(10, ge=1, description="at the beginning and at the end, whose means are compared")
    fall: float = Field(0.05, gt=0, description="of the watched part's mean, from which on it counts")
    on_hacking: Literal["warn", "stop"] = "warn"


class Guard:
    """Compares the last rollouts with the first."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.first: list[tuple[float, float]] = []  # (reward, watched part) of each rollout
        self.last: list[tuple[float, float]] = []
        self.warned = False

    def look(self, row: Mapping[str, float]) -> dict[str, float]:
        """Metrics for a rollout's `row`: what both gained since the beginning, and 1 where it looks like hacking.

        Raises FledgeError where it does and `on_hacking` is stop. A rollout without either value is passed over.
        """
        watched = f"reward_{self.config.part}"
        if "reward" not in row or watched not in row:
            return {}
        pair = (row["reward"], row[watched])
        if len(self.first) < self.config.rollouts:
            self.first.append(pair)
            return {}
        self.last = [*self.last, pair][-self.config.rollouts :]
        if len(self.last) < self.config.rollouts:
            return {}
        reward, held_out = (
            sum(x[i] for x in self.last) / len(self.last) - sum(x[i] for x in self.first) / len(self.first)
            for i in (0, 1)
        )
        hacking = reward > 0 and held_out < -self.config.fall
        if hacking:
            self._tell(reward, held_out)
        return {"reward_gain": reward, f"{self.config.part}_gain": held_out, "hacking": float(hacking)}

    def _tell(self, reward: float, held_out: float) -> None:
        problem = (
            f"the reward has risen by {reward:.3g} since the first {self.config.rollouts} rollouts, and "
            f"{self.config.part!r}, which is not trained on, has fallen by {-held_out:.3g}: this looks like hacking of "
            "the reward"
        )
        if self.config.on_hacking == "stop":
            raise FledgeError(f"{problem}. Read some answers; guard.on_hacking=warn goes on from the last snapshot")
        if not self.warned:
            self.warned = True
            warnings.warn(problem, stacklevel=4)

    def state(self) -> dict[str, Any]:
        return {"first": [list(pair) for pair in self.first], "last": [list(pair) for pair in self.last]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.first = [(pair[0], pair[1]) for pair in state["first"]]
        self.last = [(pair[0], pair[1]) for pair in state["last"]]
