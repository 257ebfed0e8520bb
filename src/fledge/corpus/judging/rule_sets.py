"""Sets of limits by language, as their sources print them, and ours. Where a set differs from its source, it says so.

``fledge`` is the default. The published values are for web pages of 50 words and more; ours also take notes,
glossaries, references and worked sums, which are short, or repeat for an honest reason: Gopher's limits on repeated
n-grams are doubled for this, and lists of keywords are caught by the variety of their words.
"""

from __future__ import annotations

from fledge.core.config import Config


class Limits(Config):
    """Between which values a page stays; both ends belong to it."""

    min: float | None = None
    max: float | None = None

    def broken(self, value: float) -> float | None:
        """The threshold that a value breaks, or None."""
        if self.min is not None and value < self.min:
            return self.min
        if self.max is not None and value > self.max:
            return self.max
        return None


Table = dict[str, Limits | None]
_TINY = 1e-9  # where a source drops "at most nothing", what is least kept


def _at_least(value: float) -> Limits:
    return Limits(min=value)


def _at_most(value: float) -> Limits:
    return Limits(max=value)


def _between(low: float, high: float) -> Limits:
    return Limits(min=low, max=high)


def _repetition(top: tuple[float, ...], again: tuple[float, ...]) -> Table:
    return {
        **{f"top_{n}gram": _at_most(most) for n, most in zip((2, 3, 4), top, strict=True)},
        **{f"duplicate_{n}grams": _at_most(most) for n, most in zip(range(5, 11), again, strict=True)},
    }


_TOP = (0.20, 0.18, 0.16)
# Glossaries repeat four words oftener, and Chinese sentences that are built alike repeat two to four characters' words:
# with the published values 7% of the Shijing and Chuci leave (docs/clean-texts.md).
_TOP_EN, _TOP_ZH = (0.20, 0.18, 0.20), (0.25, 0.25, 0.25)

# What no source has, and crawls are full of; wide, so that pages about such things stay.
_OURS: Table = {
    "duplicate_sentences": _at_most(0.5), "punctuation": _at_most(0.6), "addresses": _at_most(0.4),
    "entities": _at_most(0.03), "exclamations": _at_most(0.5), "boilerplate": _at_most(0.5),
    "placeholders": _at_most(0),
}  # fmt: skip

_ENGLISH: Table = {
    "words": _between(10, 100_000),  # Gopher: 50
    "unique_words": _at_least(0.2),
    **_repetition(_TOP_EN, (0.30, 0.28, 0.26, 0.24, 0.22, 0.20)),
    "duplicate_lines": _at_most(0.30), "duplicate_line_characters": _at_most(0.20),
    "mean_word_length": _between(2.5, 10),  # Gopher: 3; glossaries and sums are below
    "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1), "ellipsis_lines": _at_most(0.3),
    "bullet_lines": _at_most(0.9), "alphabetic_words": _at_least(0.6),  # MAP-NEO; Gopher: 0.8
    "function_words": _at_least(0.08), "lorem_ipsum": _at_most(0),  # Gopher: 2 of its 8 stop words, in 50 words
    "capitals": _at_most(0.4),  # MAP-NEO: 0.1
    "square_bracketed": _at_most(0.3), **_OURS,
}  # fmt: skip

_CHINESE: Table = {
    "characters": _between(20, 100_000),  # CT-LLM: 50 to 10,000
    "unique_words": _at_least(0.2),  # MAP-NEO's value for English
    "unique_characters": _at_least(0.1),
    "entropy": _at_least(2.0),  # CT-LLM: 3, which no text of fewer than 20 different words can have
    **_repetition(_TOP_ZH, (0.60,) * 6),
    "duplicate_lines": _at_most(0.30),
    "bracketed": _at_most(0.1), "sentences": _at_least(1), "mean_word_length": _between(1, 10),
    "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1), "ellipsis_lines": _at_most(0.3),
    "bullet_lines": _at_most(0.9), "digits": _at_most(0.45),  # CT-LLM: 0.3; worked sums are above
    **_OURS,
}  # fmt: skip

_CODE: Table = {
    "longest_line": _at_most(1000), "mean_line": _at_most(100), "alphanumeric": _between(0.25, 0.98),
    "duplicate_lines": _at_most(0.8),
}  # fmt: skip

# MassiveText (Rae et al., 2112.11446, table A1). Top n-grams: the first occurrence does not count here.
_GOPHER: Table = {
    "words": _between(50, 100_000), "mean_word_length": _between(3, 10), "hash_signs": _at_most(0.1),
    "ellipses": _at_most(0.1), "bullet_lines": _at_most(0.9), "ellipsis_lines": _at_most(0.3),
    "alphabetic_words": _at_least(0.8), "stop_words": _at_least(2), "duplicate_lines": _at_most(0.30),
    "duplicate_paragraphs": _at_most(0.30), "duplicate_line_characters": _at_most(0.20),
    "duplicate_paragraph_characters": _at_most(0.20), **_repetition(_TOP, (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)),
}  # fmt: skip

# C4 (Raffel et al., 1910.10683), what it says of pages; its list of bad words is not shipped (toxic.py is ours).
_C4: Table = {"sentences": _at_least(5), "lorem_ipsum": _at_most(0), "curly_brackets": _at_most(0)}

# FineWeb (Penedo et al., 2406.17557, section 3.6), beyond Gopher and C4: the paper's .1 of characters, not the .01 that
# datatrove's filter has as its default.
_FINEWEB: Table = {
    "terminal_lines": _at_least(0.12), "duplicate_line_characters": _at_most(0.1), "short_lines": _at_most(0.67),
    "line_breaks": _at_most(0.3),
}  # fmt: skip

# FineWeb-2's configuration of cmn_Hani. Language scores are of its own identifier (GlotLID, .692) and left out.
_FINEWEB2: Table = {
    "duplicate_lines": _at_most(0.287), **_repetition((0.256, 0.201, 0.171), (0.198, 0.182, 0.167, 0.154, 0.14, 0.127)),
    "terminal_lines": _at_least(0.106), "mean_word_length": _between(1, 5), "alphabetic_words": _at_least(0.735),
    "line_breaks": _at_most(0.178), "stop_words": _at_least(2), "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1),
    "bullet_lines": _at_most(0.9), "ellipsis_lines": _at_most(0.3),
}  # fmt: skip

# CT-LLM (Du et al., 2404.04167), the paper's table. Row 15, the language's score, is languages.minimum.
_CT_LLM: Table = {
    "bracketed": _at_most(0.1), "sentences": _at_least(2), "characters": _between(50, 10_000),
    "mean_word_length": _between(1.3, 10), "hash_runs": _at_most(0.1), "ellipsis_runs": _at_most(0.1),
    "digits": _at_most(0.3), "ellipsis_lines": _at_most(0.3), "bullet_lines": _at_most(0.9),
    "punctuation": _at_least(_TINY), "unique_characters": _at_least(0.1 + _TINY), "entropy": _at_least(3.0),
    **_repetition(_TOP, (0.60,) * 6),
}  # fmt: skip

# What the published code does of that table: its test of repetition asks whether a pair is true, which it always is, so
# rows 16 and 17 drop nothing; nothing else of the code is reproduced.
_CT_LLM_CODE: Table = {
    name: limits for name, limits in _CT_LLM.items() if not name.startswith(("top_", "duplicate_"))
}

# MAP-NEO's English pipeline (Zhang et al., 2405.19327): signals of RedPajama-v2. Perplexity and the classifiers of
# books and wikis are left out.
_MAP_NEO: Table = {
    "words": _between(50, 10_000), "characters": _at_least(1000), "lines": _at_least(10),
    "mean_word_length": _between(3, 10), "ellipsis_lines": _at_most(0.1), "bullet_lines": _at_most(0.9),
    "alphabetic_words": _at_least(0.6), "stop_words": _at_least(2), "stop_word_share": _at_least(0.06),
    "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1), "curly_brackets": _at_most(0.025),
    "lorem_ipsum": _at_most(0), "sentences": _at_most(7_500), "capitals": _at_most(0.1),
    "unique_words": _between(0.2, 0.8), "entropy": _between(3, 6), "digits": _at_most(0.3),
    **_repetition(_TOP, (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)),
}  # fmt: skip

SETS: dict[str, dict[str, Table]] = {
    "en": {"fledge": _ENGLISH, "gopher": _GOPHER, "c4": _C4, "fineweb": _FINEWEB, "map_neo": _MAP_NEO},
    "zh": {"fledge": _CHINESE, "fineweb2": _FINEWEB2, "ct_llm": _CT_LLM, "ct_llm_code": _CT_LLM_CODE},
    "code": {"fledge": _CODE},
}
