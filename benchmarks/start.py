"""What induction heads at the start (model/induction.py) are worth: held-out bits per byte after equal work.

    python benchmarks/start.py runs/fledgling [--tokens 400000] [--seeds 0 1]

Pretrains on the shards of a finished quickstart, from both starts with each seed, on the same tokens in the same order.
Prints bits per byte, and writes benchmarks/results/start.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from fledge.core.artefact import hardware, versions
from fledge.core.config import build
from fledge.core.machine import machine, set_switches
from fledge.stages import pretrain

RESULTS = Path(__file__).parent / "results" / "start.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    set_switches()
    rows = []
    for seed in arguments.seeds:
        for start in ("normal", "induction"):
            rows.append({"seed": seed, "start": start, **_train(arguments.run, arguments.tokens, seed, start)})
            print(rows[-1], flush=True)
    facts = {"machine": hardware(), "compute": machine().plain(), "versions": versions(), "tokens": arguments.tokens,
             "rows": rows}  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _train(run: Path, tokens: int, seed: int, start: str) -> dict[str, float]:
    values = {
        "shards": str(run / "shards"), "tokenizer": str(run / "tokenizer"), "tokens": tokens, "seed": seed,
        "model": {"size": "fledgling", "start": start},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        pretrain.run(build(pretrain.Config, values), Path(folder) / "model")
        lines = (Path(folder) / "model" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [row for row in map(json.loads, lines) if "bits_per_byte" in row][-1]
    return {"steps": last["step"], "bits_per_byte": last["bits_per_byte"]}


if __name__ == "__main__":
    main()
