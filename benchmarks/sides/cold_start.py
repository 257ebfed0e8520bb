"""Both sides: seconds that a command takes to train one step of SFT and end, from a cold start. SIDE: fledge, trl.

    python benchmarks/sides/cold_start.py fledge        (trl: under the interpreter that has it; --direct: without
                                                         accelerate's launcher, which sets one thread)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import work

ROWS, BATCH = 64, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("side", choices=["fledge", "trl"])
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--direct", action="store_true", help="trl: its script in this interpreter, all threads")
    arguments = parser.parse_args()
    folder = work.model_folder(arguments.size)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data" / "train.jsonl"
        write_conversations(data)
        variables = {**os.environ, "HF_HOME": f"{place}/hf", "HF_HUB_OFFLINE": "1"}
        if arguments.side == "fledge":
            command = fledge(folder, data, Path(place) / "out")
        else:
            command = trl(folder, data.parent, Path(place) / "out", arguments.direct)
        started = time.perf_counter()
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
        if not (Path(place) / "out" / "model.safetensors").exists():
            sys.exit(f"{' '.join(command)}: wrote no model.safetensors")
    packages = ("fledge", "torch") if arguments.side == "fledge" else ("torch", "transformers", "trl")
    work.report(seconds, seconds, packages, command=" ".join([Path(command[0]).name, *command[1:3]]))


def write_conversations(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        for prompt, answer in work.conversations(ROWS):
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")


def fledge(model: Path, data: Path, out: Path) -> list[str]:
    values = {"model": model, "data": f"[{data}]", "optimizer.lr": "1e-5", "batch_size": BATCH, "epochs": BATCH / ROWS}
    words = [f"{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "fledge.cli", "sft", *words, "--out", str(out)]


def trl(model: Path, data: Path, out: Path, direct: bool) -> list[str]:
    values = {
        "model_name_or_path": model, "dataset_name": data, "max_steps": 1, "use_cpu": True,
        "per_device_train_batch_size": BATCH, "learning_rate": "1e-5", "output_dir": out, "report_to": "none",
        "save_strategy": "no",
    }  # fmt: skip
    if direct:
        values["gradient_checkpointing"] = False
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    start = [sys.executable, "-m", "trl.scripts.sft"] if direct else [f"{Path(sys.executable).parent}/trl", "sft"]
    return [*start, *words]


if __name__ == "__main__":
    main()
