"""A page for each set of limits: what it is, where it is from, every rule with its threshold (``docs/rules``).

    python -m fledge.corpus.judging.rule_pages docs/rules

writes them; a test holds that they are those of the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fledge.core.errors import ConfigError
from fledge.corpus.judging.rule_sets import SETS, Limits, Table
from fledge.corpus.judging.rulebook import RULES

LANGUAGES = {"en": "English", "zh": "Chinese", "code": "source code"}

ABOUT = {
    "fledge": "Ours, the default of every language. It begins with Gopher's and CT-LLM's limits and is wider where "
    "notes, glossaries, references and worked sums would be lost, which are short or repeat for an honest reason; "
    "rules of our own take what crawls are full of and no source measures. What it finds and what it wrongly takes: "
    "docs/planted-truth.md, docs/clean-texts.md.",
    "gopher": "MassiveText's quality and repetition filters: Rae et al. 2021 (2112.11446), section A.1, table A1. The "
    "most frequent n-grams count without their first occurrence here: with it, a text of a few n-grams looks "
    "repetitive.",
    "c4": "What C4 says of whole pages: Raffel et al. 2019 (1910.10683), section 2.2. What it says of lines "
    "is `lines.drop='[terminal, short, javascript, policy, long_word]'`; its list of bad words is not shipped.",
    "fineweb": "FineWeb's own three rules: Penedo et al. 2024 (2406.17557), section 3.6. Meant to come after `gopher` "
    "and `c4`. The share of repeated lines' characters is the paper's .1, where datatrove's filter has .01 by default.",
    "map_neo": "MAP-NEO's English pipeline: Zhang et al. 2024 (2405.19327), on signals of RedPajama-v2. Perplexity and "
    "the classifiers of books and wikis are left out.",
    "fineweb2": "FineWeb-2's configuration of `cmn_Hani`: Penedo et al. 2025 (2506.20920). The language's score is of "
    "its own identifier and left out; `languages.minimum` is ours.",
    "ct_llm": "CT-LLM's rules for Chinese: Du et al. 2024 (2404.04167), the paper's table. Its row 15, the language's "
    "score, is `languages.minimum`.",
    "ct_llm_code": "The same as its published code applies it: the test of repetition there asks whether a pair is "
    "true, which it always is, so rows 16 and 17 drop nothing. To be compared with `ct_llm` in one report.",
}


def require_set(name: str) -> None:
    """Raises `ConfigError` for a set that there is not."""
    if name not in ABOUT:
        raise ConfigError(f"{name}: there is no such set of rules; sets: {', '.join(ABOUT)}")


def page(name: str) -> str:
    """The page of a set, in Markdown. Raises `ConfigError` for a set that there is not."""
    require_set(name)
    lines = [f"# Rules: `{name}`", "", ABOUT[name]]
    for language, sets in SETS.items():
        if name in sets:
            chosen = "What is used where nothing is said." if name == "fledge" else f"`rules.sets.{language}={name}`"
            lines += ["", f"## {LANGUAGES[language]}", "", chosen, ""]
            lines += ["| rule | a page stays with | measured, and after whom |", "|---|---|---|"]
            lines += [f"| `{rule}` | {between} | {source} |" for rule, between, source in described(sets[name])]
    return "\n".join(lines) + "\n"


def described(limits: Table) -> list[tuple[str, str, str]]:
    """(rule, between which values a page stays, what is measured and after whom) of every rule of a set."""
    return [(rule, stays(between), RULES[rule].source) for rule, between in limits.items() if between is not None]


def stays(limits: Limits) -> str:
    """Between which values a page stays, in words."""
    low, high = (None if end is None else f"{end:,.6g}" for end in (limits.min, limits.max))
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ABOUT:
        (folder / f"{name}.md").write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
