"""A byte-level BPE tokenizer as a Hugging Face folder: text -> ids -> text.

Control strings inside text are plain text: only code that builds a dialogue (`fledge.tokenizer.chat`) puts control
ids, so no user can speak with the voice of the template. No token is added at either end.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fledge.core.errors import ArtefactError, DataError
from fledge.tokenizer.bytelevel import ENDOFTEXT, IM_END, IM_START, token_bytes
from fledge.tokenizer.corpus import CorpusEncoder, Disagreement, batches_of
from fledge.tokenizer.fast import FastEncoder, make_fast
from fledge.tokenizer.template import Template, read_template, write_template

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Below this many characters in a batch, starting the fast encoder costs more than it saves.
_SMALL_BATCH = 20_000


class Tokenizer:
    """Ids and text. Make one with `load`, or with `fledge.tokenizer.bpe.train`.

    ``vocab_size`` is the number of ids in use (highest + 1), ``embedding_rows`` the rows of an embedding matrix for
    it, padded. ``default_system`` is the system message put before dialogues that have none (None: nothing is put).
    """

    def __init__(self, definition: str, config: dict[str, Any], template: str | None, origin: str = "") -> None:
        from tokenizers import Tokenizer as Backend

        self.origin = origin
        self._definition = definition
        self._config = config
        self._template_text = template
        try:
            self._backend = Backend.from_str(definition)
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{origin}: not a tokenizer.json that can be read: {error}") from None
        self._backend.encode_special_tokens = True  # control strings in text are text
        self._backend.no_truncation()
        self._backend.no_padding()
        self._fill_tables(json.loads(definition))
        self._short: dict[str, list[int]] = {}
        self._fast: FastEncoder | None = None
        self._fast_reason: str | None = None
        self.template: Template = read_template(template)

    def _fill_tables(self, value: dict[str, Any]) -> None:
        if value["model"].get("type") != "BPE" or (value.get("decoder") or {}).get("type") != "ByteLevel":
            raise DataError(
                f"{self.origin}: not a byte-level BPE tokenizer (model {value['model'].get('type')}, decoder "
                f"{(value.get('decoder') or {}).get('type')}); only those are supported"
            )
        added = {token["id"]: token for token in value.get("added_tokens", [])}
        self._id_of: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(self._id_of.values()) + 1
        self._bytes: list[bytes] = [UNKNOWN.encode()] * self.vocab_size
        for token, number in self._id_of.items():
            piece = None if number in added else token_bytes(token)
            self._bytes[number] = token.encode() if piece is None else piece
        self.control_ids: frozenset[int] = frozenset(i for i, token in added.items() if token["special"])
        self.control_strings: tuple[str, ...] = tuple(added[i]["content"] for i in sorted(self.control_ids))
        longest_first = sorted(self.control_strings, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.embedding_rows: int = max(int(self._config.get("embedding_rows") or 0), self.vocab_size)

    # -- folders ---------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read a Hugging Face tokenizer folder (``tokenizer.json``, byte-level BPE). Code in it is never run."""
        folder = Path(folder)
        try:
            definition = (folder / "tokenizer.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ArtefactError(f"{folder}: has no tokenizer.json, so it is not a tokenizer folder") from None
        config_path = folder / "tokenizer_config.json"
        try:
            config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
        except ValueError as error:
            raise ArtefactError(f"{config_path}: not valid JSON: {error}") from None
        found = cls(definition, config, _find_template(folder, config), str(folder))
        found.embedding_rows = max(found.embedding_rows, _model_rows(folder))
        return found

    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json`` for AutoTokenizer.

        The chat template written is the one that `fledge.tokenizer.chat` follows: the folder's own where it is
        ChatML, else ours.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = dict(self._config)
        if self.has_chat and self.template.differs:
            config["chat_template"] = write_template(self.default_system)
        elif self._template_text is not None:
            config["chat_template"] = self._template_text
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        special = {key: config[key] for key in ("eos_token", "pad_token", "bos_token", "unk_token") if config.get(key)}
        (folder / "tokenizer.json").write_text(self._definition, encoding="utf-8")
        for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
            (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").unlink(missing_ok=True)  # an older one would win over the new

    # -- control tokens --------------------------------------------------------------------------------------------

    @property
    def endoftext(self) -> int:
        """The id that ends a document (and pads)."""
        if ENDOFTEXT in self._id_of:
            return self._id_of[ENDOFTEXT]
        return self._control(_content(self._config.get("eos_token")) or ENDOFTEXT)

    @property
    def im_start(self) -> int:
        return self._control(IM_START)

    @property
    def im_end(self) -> int:
        return self._control(IM_END)

    @property
    def has_chat(self) -> bool:
        """Whether the tokens of ChatML exist."""
        return IM_START in self._id_of and IM_END in self._id_of

    @property
    def default_system(self) -> str | None:
        return self.template.default_system

    def _control(self, text: str) -> int:
        if text not in self._id_of:
            raise DataError(f"{self.origin}: this tokenizer has no token {text}, which is needed here")
        return self._id_of[text]

    # -- text to ids -----------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ids of a text; control strings in it are plain text. Decoding gives the text's NFC."""
        fast = self.fast if len(text) > _SMALL_BATCH else self._fast
        if fast is not None and fast.usable(text):
            return fast.encode(_valid(text))
        return list(self._backend.encode(_valid(text), add_special_tokens=False).ids)

    def encode_short(self, text: str) -> list[int]:
        """`encode`, remembered: for the few fixed texts of a chat template."""
        if text not in self._short:
            self._short[text] = self.encode(text)
        return list(self._short[text])

    def encode_batch(self, texts: Iterable[str], threads: int | None = None) -> list[list[int]]:
        """`encode` of many texts, on all cores (or ``threads``). For a corpus: `fledge.tokenizer.corpus`."""
        texts = list(texts)
        fast = self.fast if sum(map(len, texts)) > _SMALL_BATCH else self._fast
        if fast is None:
            return self.reference_ids(texts)
        result: list[list[int]] = []
        try:
            for (ids, lengths), _ in CorpusEncoder(self, threads, end=0).encode_all(batches_of(texts)):
                ends = lengths.cumsum()
                result += [ids[begin : end - 1].tolist() for begin, end in zip(ends - lengths, ends, strict=True)]
        except Disagreement as error:
            self._fast, self._fast_reason = None, str(error)
            return self.reference_ids(texts)
        return result

    def reference_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the ids are by definition: those of `tokenizers`."""
        found = self._backend.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [item.ids for item in found]

    @property
    def fast(self) -> FastEncoder | None:
        """The encoder through tiktoken, made at first use; None where the ids would not be the same."""
        if self._fast_reason is None:
            self._fast, self._fast_reason = make_fast(self._definition)
        return self._fast

    @property
    def fast_reason(self) -> str:
        """Why there is no fast encoder ("" where there is one)."""
        return "" if self.fast is not None else str(self._fast_reason)

    def has_control_string(self, text: str) -> bool:
        return self._control_pattern.search(text) is not None

    # -- ids to text -----------------------------------------------------------------------------------------------

    def token_bytes(self, number: int) -> bytes:
        """The bytes of one token; a padded row of the embedding stands for U+FFFD."""
        if 0 <= number < self.vocab_size:
            return self._bytes[number]
        if number < 0 or number >= self.embedding_rows:
            raise DataError(f"{self.origin}: there is no token {number}; ids go from 0 to {self.vocab_size - 1}")
        return UNKNOWN.encode()

    def decode(self, ids: Sequence[int], skip_control: bool = True) -> str:
        """Text of ids. Bytes that are no valid UTF-8 become U+FFFD."""
        kept = (i for i in ids if not (skip_control and i in self.control_ids))
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")

    def offsets(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Byte range of each token in the text of all (control tokens included)."""
        result, place = [], 0
        for number in ids:
            end = place + len(self.token_bytes(number))
            result.append((place, end))
            place = end
        return result


class StreamDecoder:
    """Decodes token by token; a character whose bytes are not all there yet is held back."""

    def __init__(self, tokenizer: Tokenizer, skip_control: bool = True) -> None:
        self._tokenizer, self._skip_control = tokenizer, skip_control
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, number: int) -> str:
        if self._skip_control and number in self._tokenizer.control_ids:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(number))

    def flush(self) -> str:
        """What was held back, as U+FFFD; the decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _valid(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"text holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}): not valid "
            "Unicode; mend the input where it was read"
        ) from None
    return text


def _content(token: Any) -> str | None:
    """A special token of tokenizer_config.json: a string, or an object with its content."""
    return token.get("content") if isinstance(token, dict) else token


def _find_template(folder: Path, config: dict[str, Any]) -> str | None:
    """chat_template.jinja (newer transformers), else the key of tokenizer_config.json (a text, or named texts)."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    value = config.get("chat_template")
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _model_rows(folder: Path) -> int:
    """Rows of the embedding of a model in the same folder; 0 where there is none."""
    try:
        return int(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("vocab_size") or 0)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0  # no model here, or a damaged one, which is for the reader of models to say


def ids_hash(folder: Path) -> str:
    """Hash of what decides a tokenizer's ids. Not of the file, which others write anew with the same meaning."""
    path = folder / "tokenizer.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: values.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path}: cannot be read as a tokenizer: {error}") from None
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
