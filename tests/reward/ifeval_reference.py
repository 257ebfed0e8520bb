"""Verdicts of IFEval's own program, as lm-eval carries it: run by `test_reward_ifeval_parity.py` as a process.

Reads lines `{"names", "values", "prompt", "reply"}`, writes lines `{"strict", "loose"}`. Exits with 3, saying why,
where the program is not installed. Without NLTK's data, which must be downloaded, its sentences cannot be counted: the
verdicts of that kind are null then.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

SENTENCES = "length_constraints:number_sentences"


def reference() -> tuple[Any, bool]:
    """The module with the checks, and whether sentences can be counted. Only the folder of the task is imported: the
    harness around it needs a hundred packages."""
    needed = ("lm_eval", "nltk", "langdetect", "immutabledict")
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        sys.exit(3)
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        nltk.data.find("tokenizers/punkt_tab")
        whole = True
    except LookupError:
        whole = False
        nltk.download = lambda *a, **k: True
        words = nltk.tokenize.NLTKWordTokenizer()
        nltk.word_tokenize = words.tokenize
    return importlib.import_module("lm_eval.tasks.ifeval.utils"), whole


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # the program talks
    checks, whole = reference()
    for line in sys.stdin:
        case = json.loads(line)
        verdicts: dict[str, list[bool | None]] = {"strict": [], "loose": []}
        for name, values in zip(case["names"], case["values"], strict=True):
            given = checks.InputExample(0, [name], case["prompt"], [values])
            for how, check in (
                ("strict", checks.test_instruction_following_strict),
                ("loose", checks.test_instruction_following_loose),
            ):
                known = whole or name != SENTENCES
                verdicts[how].append(check(given, case["reply"]).follow_instruction_list[0] if known else None)
        print(json.dumps(verdicts), file=out)


if __name__ == "__main__":
    main()
