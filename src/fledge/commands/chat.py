"""``fledge chat``: a dialogue in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fledge.commands.text import plain
from fledge.core.errors import ConfigError, FledgeError
from fledge.report.collect import read_object

HELP = "/reset forgets the dialogue, /exit ends it"


def chat(folder: Path, prompt: str | None, system: str | None, sampling: dict[str, Any], compile: bool | None) -> None:
    import fledge
    from fledge.core.machine import set_switches

    set_switches()
    if prompt == "-":
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise ConfigError("--prompt: the text is empty")
    folder = folder.expanduser()
    engine = fledge.Engine(fledge.load(folder), compile=compile)
    start = [{"role": "system", "content": system}] if system else []
    if prompt is not None:
        for piece in engine.stream([*start, {"role": "user", "content": prompt}], **sampling):
            _write(piece)
        _write("\n")
        return
    console = Console(highlight=False)
    welcome(console, folder)
    _talk(console, engine, start, sampling)


def _talk(console: Console, engine: Any, start: list[dict[str, str]], sampling: dict[str, Any]) -> None:
    messages = list(start)
    for line in _lines(console):
        if line in {"/exit", "/quit"}:
            return
        if line == "/reset":
            messages = list(start)
            console.print(Text("(the dialogue is forgotten)", style="dim"))
            continue
        if line.startswith("/"):
            console.print(Text(f"(unknown command {line.split()[0]}; {HELP})", style="dim"))
            continue
        messages.append({"role": "user", "content": line})
        try:
            reply = _reply(engine, messages, _turn(sampling, len(messages)))
        except FledgeError as error:
            messages.pop()
            console.print(Text(plain(f"({error})"), style="yellow"))
            console.print(Text("(/reset begins anew)", style="dim"))
            continue
        messages.append({"role": "assistant", "content": reply})


def _turn(sampling: dict[str, Any], count: int) -> dict[str, Any]:
    """With a seed, each turn has another one that follows from it; without, the engine decides."""
    return {**sampling, "seed": sampling["seed"] + count} if "seed" in sampling else sampling


def _reply(engine: Any, messages: list[dict[str, str]], sampling: dict[str, Any]) -> str:
    """Streamed to the terminal. Ctrl-C stops the reply, not the dialogue; what was said stays in it."""
    pieces: list[str] = []
    try:
        for piece in engine.stream(messages, **sampling):
            pieces.append(piece)
            _write(piece)
    except KeyboardInterrupt:
        _write(" …")
    _write("\n\n")
    return "".join(pieces)


def _lines(console: Console) -> Iterator[str]:
    """What the user types, without empty lines; ends with the input or Ctrl-C."""
    with suppress(ImportError):
        import readline  # noqa: F401  (editing and history of `input`)
    terminal = sys.stdin.isatty()
    while True:
        try:
            # Without a terminal the prompt would only litter the output.
            line = input("› " if terminal else "").strip()
        except EOFError:
            if terminal:
                console.print()
            return
        except KeyboardInterrupt:
            console.print()
            return
        if line:
            yield line


def _write(text: str) -> None:
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def welcome(console: Console, folder: Path) -> None:
    """What this model knows, by the world.json of its run."""
    world = find_world(folder)
    console.print(Text(plain(str(folder)), style="bold"))
    if world is not None:
        for line in knows(world):
            console.print(Text(plain(line)))
        things = _texts(world.get("try"))
        if things:
            console.print(Text("\nThings to try · 可以试试：", style="bold"))
            for line in things:
                console.print(Text(plain(f"  {line}")))
    console.print(Text(f"\n{HELP}\n", style="dim"))


def knows(world: dict[str, Any]) -> list[str]:
    """Who this is and what it has learned about, in both languages, by the world's card."""
    names, known = world.get("assistant", {}), world.get("knows", {})
    lines = []
    for language, template in _KNOWS.items():
        facts = known.get(language, {})
        people, places, words = (_texts(facts.get(key)) for key in ("people", "places", "words"))
        if people and places:
            values = {
                "name": names.get(language, ""),
                "people": len(people),
                "places": len(places),
                "words": len(words),
            }
            lines.append(template.format(**values, person=people[0], place=places[0]))
    return lines


_KNOWS = {
    "zh": "我是{name}，一个小小的双语模型。我的世界里有{people}个虚构的人（例如{person}）、{places}个虚构的地方"
    "（例如{place}）和{words}个常用词；我会算术、翻译、按格式回答、写小函数。别的我不知道，会说不知道。",
    "en": "I am {name}, a small bilingual model. My world has {people} invented people (such as {person}), {places} "
    "invented places (such as {place}) and {words} everyday words; I do sums, translate, follow formats and write "
    "small functions. What lies outside I do not know, and I should say so.",
}


def find_world(folder: Path) -> dict[str, Any] | None:
    """The world.json in the run around a model."""
    for path in sorted(folder.absolute().parent.glob("*/world.json")):
        value = read_object(path)
        if value is not None:
            return value
    return None


def _texts(value: Any) -> list[str]:
    """Strings in a value of any shape: a text, a list, or a mapping by language."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        named = value.get("prompt")
        return [named] if isinstance(named, str) else [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []
