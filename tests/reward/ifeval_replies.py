"""Replies to IFEval's prompts, made up and made to measure, for the comparison with its own program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PLAIN = "The quick brown fox jumps over the lazy dog and then it runs into the forest to look for its friends."
POOL = [
    PLAIN, PLAIN.lower(), PLAIN.upper(), f'"{PLAIN}"', f'Sure, here it is:\n"{PLAIN}"', f"**{PLAIN}**", f"*{PLAIN}*",
    "Yes, of course. I will, as you asked, write it.", "My answer is yes.", "My answer is no",
    "**My answer is maybe.**",
    "* one\n* two\n* three", "- one\n- two\n- three\n- four", "Here:\n\n* **one**\n* *two*\n  * three", "• one\n• two",
    "1. one\n2. two", "*one* *two* *three*", "**one** and **two**, then *three*", "***one***", "* *\n** **",
    "<<A poem of joy>>\n\nRoses are red.", "<< >>", "<A title>", "<<One\ntwo>>", "# Title\n\nText",
    '{"a": [1, 2], "b": null}', '```json\n{"a": 1}\n```', "```\n[1]\n```", "{'a': 1}", "Sure:\n{\"a\": 1}", "{}", "NaN",
    "One.\n***\nTwo.\n***\nThree.", "***\nOne.\n***", "One.***Two.***", "One.\n***\n\n***\nTwo.", "One.\n* * *\nTwo.",
    "One.\n******\nTwo.", "One.\n******\nOne.", "******\nOne.\n******\nTwo.\n******", "a******b******c",
    "SECTION 1\nOne.\nSECTION 2\nTwo.", "Section 1: one Section 2: two Section 3: three", "SECTION X\nSECTION Y",
    "Day 1\nOne.\n\nDay 2\nTwo.\n\nDay 3\nThree.", "PARAGRAPH 1\n\nPARAGRAPH 2", "Audience 1: a. Audience 2: b.",
    "Dear [name], I live in [address] at [time]. [a] [b] [c] [d] [e] [f] [g] [h]", "[]", "[one\ntwo]", "[[x]] [y]",
    "It is done.\n\nP.S. More.", "It is done.\nP.P.S. More.", "It is done. P.S more", "It is done. PS more", "p. s. x",
    "It is done.\n\nP.P.S More", "It is done.\nP. P. S. More", "One.\n\nTwo.\n\nThree.\n\nFour.",
    "I SAY NO, NASA AND U.S. ARE GREAT; IT'S A-OK", "A B C D E F G H I J K L M N O P", "NOTHING is WELL-KNOWN here",
    "One, two; three! Four? Five...", "E.g. Mr. Fox came at 3.14 p.m. with Dr. No. He left.", "!!!", "?", "no stop",
    "Any other questions?", "Is there anything else I can help with?", '"Is there anything else I can help with?"',
    "नमस्ते दोस्तों, आज हम मौसम के बारे में बात करेंगे और फिर घर जाएंगे।", "这是一个关于天气的故事。", "12345 67890", "...",
    "Bonjour, je m'appelle Marie et j'habite à Paris avec ma famille.", "word " * 100, "word " * 400, "Hi. " * 60,
    "", " \n ", "\n\n\n", "x", "𝕏", "a" * 3000, "It’s “quoted”", "“All of it is quoted with curly marks.”",
]  # fmt: skip


def replies(prompt: str, names: Sequence[str], values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Replies made for these instructions: that follow them one by one, nearly, and with an introduction."""
    yield prompt
    yield f"{prompt}\n\n{PLAIN}"
    for name, given in zip(names, values, strict=True):
        for text in _for(name, given):
            yield text
            yield f"Sure, here it is:\n{text}"
            yield f"**{text}**\nI hope this helps!"
            yield text.lower()
            yield text.upper()


def _for(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    number = next((int(value) for value in given.values() if isinstance(value, int | float)), 3)
    around = sorted({max(0, number - 1), number, number + 1})
    if name == "keywords:existence":
        yield " and ".join(given["keywords"])
        yield "".join(given["keywords"])
        yield " and ".join(given["keywords"][1:])
    elif name == "keywords:forbidden_words":
        yield f"I say {given['forbidden_words'][0]}."
        yield f"I say {given['forbidden_words'][-1]}s."
        yield f"I say x_{given['forbidden_words'][0]} and {given['forbidden_words'][0]}-like."
    elif name == "keywords:frequency":
        for count in around:
            yield " or ".join([given["keyword"]] * count) or PLAIN
    elif name == "keywords:letter_frequency":
        for count in around:
            yield f"{given['letter']}" * count or PLAIN
    elif name.startswith("length_constraints:number"):
        for count in around:
            yield "word " * count
            yield "It is so. " * count
            yield "\n***\n".join(f"Part {place}." for place in range(count))
    elif name == "length_constraints:nth_paragraph_first_word":
        parts = [f"Paragraph {place} begins." for place in range(1, given["num_paragraphs"] + 1)]
        parts[given["nth_paragraph"] - 1] = f"{given['first_word']} is the first word."
        yield "\n\n".join(parts)
        yield "\n\n".join(parts).replace(given["first_word"], f'"{given["first_word"]}')
        yield "\n\n".join(parts).replace(given["first_word"], f"{given['first_word']}'s", 1)
        yield "\n\n\n\n".join(parts)
        yield "\n".join(parts)
    elif name == "detectable_content:postscript":
        yield f"Done.\n\n{given['postscript_marker']} One more thing."
        yield f"Done. {given['postscript_marker']}One more"
    elif name == "combination:repeat_prompt":
        yield f"{given['prompt_to_repeat']}\n\n{PLAIN}"
        yield f"{PLAIN}\n\n{given['prompt_to_repeat']}"
    elif name == "startend:end_checker":
        yield f"{PLAIN} {given['end_phrase']}"
        yield f'"{PLAIN} {given["end_phrase"]}"'
        yield f"{PLAIN} {given['end_phrase']} Bye"
    elif name.startswith(("detectable_format", "detectable_content")):
        for count in around:
            yield "\n".join(f"* point {place}" for place in range(count)) or PLAIN
            yield " ".join(f"*part {place}*" for place in range(count)) or PLAIN
            yield " ".join(f"[place {place}]" for place in range(count)) or PLAIN
            word = str(given.get("section_spliter", "SECTION"))
            yield "\n".join(f"{word} {place + 1}\nText." for place in range(count)) or PLAIN
    elif name == "change_case:capital_word_frequency":
        for count in around:
            yield "LOUD " * count + "quiet"
    else:
        yield json.dumps({"answer": PLAIN})


def cases(prompt: str, names: Sequence[str], values: Sequence[Mapping[str, Any]], pool: int) -> list[str]:
    """All made to measure and `pool` of those made up, which turn with the prompt. No reply twice."""
    start = len(prompt) % len(POOL)
    turned = [*POOL[start:], *POOL[:start]][:pool]
    return list(dict.fromkeys([*replies(prompt, names, values), *turned]))
