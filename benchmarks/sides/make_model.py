"""Write a model folder for both sides: random weights of a shape, and a tokenizer whose words are one token each.

    python benchmarks/sides/make_model.py tiny8k tiny8k-reward

``SIZE-reward`` is a reward model of that shape. The tokenizer is not trained: its merges spell out words of three
letters with the space before them, so that a text of n words has exactly n tokens, in every library.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
import work

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder
from fledge.model.scalar import ScalarDecoder, save_scalar
from fledge.tokenizer.bytelevel import QWEN_PATTERN, byte_alphabet
from fledge.tokenizer.template import write_template
from fledge.tokenizer.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("sizes", nargs="+", choices=[*work.SHAPES, *(size + work.REWARD for size in work.SHAPES)])
    for size in parser.parse_args().sizes:
        folder = work.WORK / "models" / size
        config = DecoderConfig.model_validate(work.shape(size.removesuffix(work.REWARD)))
        decoder = ScalarDecoder(config) if size.endswith(work.REWARD) else Decoder(config)
        decoder.initialise(0)
        tokenizer = Tokenizer(json.dumps(definition()), settings(), write_template(None))
        tokenizer.save(folder)
        if isinstance(decoder, ScalarDecoder):
            decoder.start_score("normal", 0)
            save_scalar(decoder, folder, tokenizer.endoftext)
            continue
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.im_end, "pad_token_id": tokenizer.endoftext}
        save_decoder(decoder, folder, ends, torch.float32)


def definition() -> dict[str, Any]:
    """tokenizer.json: 256 bytes, then " a", " ab", " abc" and so on, then the control strings."""
    letters, space = list(work.LETTERS), byte_alphabet()[32]
    merges = [(space, a) for a in letters]
    merges += [(space + a, b) for a in letters for b in letters]
    for index in range(work.word_count()):
        word = work.word(index)
        merges.append((space + word[:2], word[2]))
    tokens = [*byte_alphabet(), *(a + b for a, b in merges)]
    added = [
        {"id": len(tokens) + i, "content": content, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for i, content in enumerate((work.PAD, work.START, work.END))
    ]  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [list(m) for m in merges],
        },
    }  # fmt: skip


def settings() -> dict[str, Any]:
    """tokenizer_config.json: answers end with the end of a turn, as in Qwen's chat models."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": work.END, "pad_token": work.PAD,
        "model_max_length": 4096, "clean_up_tokenization_spaces": False,
    }  # fmt: skip


if __name__ == "__main__":
    main()
