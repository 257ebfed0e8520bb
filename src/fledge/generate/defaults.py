"""What chat takes from generation_config.json, as transformers does (SPEC L.2). RL never looks at it."""

from __future__ import annotations

import difflib
import secrets
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.generate.sampling import Sampling

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer

ARGUMENTS = ("temperature", "top_p", "top_k", "max_new_tokens", "repetition_penalty", "seed")
MAX_NEW_TOKENS = 512  # Qwen's documentation (SPEC L.2); transformers' own default of 20 tokens in all serves nobody

# Keys that change what is generated and are not done here, with the value that means "off".
_UNSUPPORTED: dict[str, Any] = {
    "num_beams": 1, "num_beam_groups": 1, "penalty_alpha": None, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "sequence_bias": None, "guidance_scale": None, "watermarking_config": None, "min_length": 0, "min_new_tokens": 0,
    "stop_strings": None, "max_time": None, "top_h": None, "exponential_decay_length_penalty": None,
}  # fmt: skip


def chat_sampling(generation: Mapping[str, Any], given: Mapping[str, Any]) -> Sampling:
    """The sampling of a chat: what the caller gives, else what the folder says, else transformers' defaults.

    Greedy unless the folder says ``do_sample`` or a temperature above 0 is given. Without a seed a fresh one is drawn.
    """
    for key in given:
        if key not in ARGUMENTS:
            near = difflib.get_close_matches(key, ARGUMENTS, n=1, cutoff=0.5)
            hint = "temperature=0 is greedy" if key == "do_sample" else f"did you mean {near[0]!r}?" if near else ""
            hint = f"; {hint}" if hint else ""
            raise ConfigError(f"unknown sampling argument {key!r}{hint} (known: {', '.join(ARGUMENTS)})")
    given = {key: value for key, value in given.items() if value is not None}
    for key, off in _UNSUPPORTED.items():
        if generation.get(key) not in (None, off):
            note = f"generation_config.json: {key}={generation[key]!r} is not supported and not applied"
            warnings.warn(note, stacklevel=3)
    values: dict[str, Any] = {
        "repetition_penalty": _or(generation.get("repetition_penalty"), 1.0),
        "max_new_tokens": _or(generation.get("max_new_tokens"), MAX_NEW_TOKENS),
    }
    sampled = given["temperature"] != 0 if "temperature" in given else bool(generation.get("do_sample"))
    if sampled:
        values |= {
            "temperature": _or(generation.get("temperature"), 1.0),
            "top_p": _or(generation.get("top_p"), 1.0),
            "top_k": _or(generation.get("top_k"), 50),  # transformers' default
            "seed": secrets.randbits(63),
        }
    else:
        values["temperature"] = 0.0
        idle = [key for key in ("top_p", "top_k") if key in given]
        if idle and "temperature" not in given:
            raise ConfigError(f"{idle[0]} has no effect, because the default here is greedy: give a temperature too")
    return build(Sampling, values | given, "sampling")


def stop_tokens(generation: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[int, ...]:
    """End of turn (where the tokenizer has one), end of text, and what the folder names."""
    named = generation.get("eos_token_id")
    ids = named if isinstance(named, list) else [] if named is None else [named]
    turn = [tokenizer.im_end] if tokenizer.has_chat else []
    return tuple(dict.fromkeys([*turn, tokenizer.endoftext, *ids]))


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
