"""The columns that rows beside TRL have in common."""

from __future__ import annotations

from collections.abc import Sequence

from pair import KEEP_MEMORY, Peer, Side

from fledge.core.machine import bf16_instructions, cpu_flags

# gradient checkpointing only costs where memory is at hand
PLAIN = ("gradient_checkpointing=False",)


def ours(work: Sequence[str]) -> Side:
    """Without AVX-512 there are no loops of our own for what lies between products, and torch's compiler takes minutes
    for every kind of pass that the online stages have: nothing is compiled then, as in a short run."""
    return Side("fledge_train.py", (*work, *(() if "avx512f" in cpu_flags() else ("--compile", "off"))))


def peers(
    work: Sequence[str], candidates: Sequence[Sequence[str]] = (PLAIN,), environment: str = "hf"
) -> tuple[Peer, Peer]:
    """As it comes, and tuned by the best of ``candidates``, which are arguments of TRL's configuration.

    TRL computes in bf16 unless told otherwise. Where the processor has no instructions for it, that takes many times as
    long as float32, which is what ours computes in there; both columns then have bf16=False, in TRL's favour.
    """
    always = () if bf16_instructions() else ("bf16=False",)

    def side(settings: Sequence[str], variables: dict[str, str]) -> Side:
        given = (*settings, *always)
        return Side("trl_train.py", (*work, *(("--set", *given) if given else ())), environment, variables)

    tuned = tuple(side(settings, KEEP_MEMORY) for settings in candidates)
    return Peer("trl", False, (side((), {}),)), Peer("trl", True, tuned)
