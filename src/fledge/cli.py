"""The command line. Nothing heavy is imported before a command is chosen: ``fledge --help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fledge.core.errors import FledgeError
from fledge.doors.corpus import add_corpus
from fledge.doors.options import DryRun, Model, Overrides
from fledge.doors.stages import add_stages

app = typer.Typer(
    name="fledge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Raise a language model from raw web pages to an aligned, bilingual chat model.",
    epilog="Start with `fledge run fledgling --dry-run`, then the same without `--dry-run`.",
)


RECIPES = sorted(path.stem for path in Path(__file__).with_name("recipes").glob("*.yaml"))  # those of recipe.shipped


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help=f"A shipped recipe ({', '.join(RECIPES)}) or a YAML file.")
    ],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="Name of the run's folder; the recipe's own name if not given.")
    ] = None,
    dry_run: DryRun = False,
    redo: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Make this stage again, and what depends on it.")
    ] = None,
) -> None:
    """Run a recipe: what is missing is run, what is done is skipped, what was interrupted goes on.

    Examples:

        fledge run fledgling

        fledge run fledgling assistant_name=小雀 pages=~/notes

        fledge run fledgling sft.optimizer.lr=1e-4 --name other-rate

        fledge run fledgling --redo dpo
    """
    from fledge.commands.run import run_recipe

    run_recipe(recipe, overrides or [], out, name, dry_run, redo)


@app.command()
def chat(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="Answer this and end; `-` reads it from standard input.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the dialogue.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy; the model's own default if not given.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    repetition_penalty: Annotated[float | None, typer.Option(min=0.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same replies.")] = None,
    compile: Annotated[
        bool | None,
        typer.Option(help="Loops of C++ on a CPU, built in seconds the first time. Default: where they can be."),
    ] = None,
) -> None:
    """Talk with a model. `/reset` forgets the dialogue, `/exit` ends it.

    Examples:

        fledge chat runs/fledgling/grpo

        fledge chat runs/fledgling/grpo --prompt "你是谁？" --greedy
    """
    from fledge.commands.chat import chat as talk

    sampling = {
        "temperature": 0.0 if greedy else temperature, "top_p": top_p, "top_k": top_k,
        "repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    given = {key: value for key, value in sampling.items() if value is not None}
    talk(model, prompt, system, given, compile)


def _keys_of_evaluate(wanted: bool) -> None:
    """Before the model is missed: the keys can be asked for without one."""
    if wanted:
        from fledge.commands.stage import print_keys

        print_keys("evaluate")
        raise typer.Exit


@app.command()
def evaluate(
    model: Model,
    overrides: Overrides = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Tasks to score (JSONL); those of the model's own run if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; a new one beside the model if not given.")
    ] = None,
    dry_run: DryRun = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Score again where results exist; those of a recipe are kept.")
    ] = False,
    keys: Annotated[
        bool,
        typer.Option(
            "--keys",
            is_eager=True,
            callback=_keys_of_evaluate,
            help="Print every key with its type, default and meaning.",
        ),
    ] = False,
) -> None:
    """Score a model on held-out tasks, each skill and language apart, with intervals.

    Without options, the scores that the model's own run made are shown; what is asked otherwise gets a new folder.

    Examples:

        fledge evaluate runs/fledgling/grpo

        fledge evaluate runs/fledgling/grpo limit=20 skills=[arithmetic]

        fledge evaluate ~/models/some-folder --tasks my-tasks.jsonl --out scores
    """
    from fledge.commands.evaluate import evaluate as score

    score(model, tasks, overrides or [], out, dry_run, redo)


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Conversations or pairs (JSONL, JSON, Parquet).")],
    tokenizer: Annotated[Path, typer.Option(metavar="DIR", help="Folder with tokenizer.json: a model will do.")],
    limit: Annotated[int, typer.Option(min=1, help="How many records to show.")] = 3,
    mask: Annotated[str, typer.Option(help="What is trained on: response, last, qwen1 or all.")] = "response",
    ids: Annotated[bool, typer.Option("--ids", help="Show the tokens' numbers too.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The context that a record must fit in.")] = None,
) -> None:
    """Show the tokens of data, in colour: which are trained on, which are only seen.

    Examples:

        fledge inspect runs/fledgling/world/sft.jsonl --tokenizer runs/fledgling/tokenizer
    """
    from fledge.commands.inspect import inspect as show

    show(data, tokenizer, limit, mask, ids, max_tokens)


@app.command()
def lineage(
    artefact: Annotated[Path, typer.Argument(metavar="ARTEFACT", help="A folder with manifest.json.")],
    document: Annotated[
        str | None, typer.Option(metavar="ID", help="Trace a document of a corpus, kept or dropped.")
    ] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Trace a training batch: the step...")] = None,
    token: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="...and the token's position in it.")
    ] = None,
) -> None:
    """From what an artefact was made; where a document or a token of a batch came from.

    Examples:

        fledge lineage runs/fledgling/grpo

        fledge lineage runs/fledgling/corpus --document 3f2a...

        fledge lineage runs/fledgling/pretrain --step 10 --token 1234
    """
    from fledge.commands.lineage import lineage as trace

    trace(artefact, document, step, token)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/fledgling.")],
) -> None:
    """Write RUN/report.html: one file that shows the whole run, whatever of it is there.

    Examples:

        fledge report runs/fledgling
    """
    from fledge.report.run import write_report

    typer.echo(write_report(run))


@app.command()
def profile(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A training stage, such as sft or ppo.")],
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="YAML file, or the folder of an artefact of this stage.")
    ] = None,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=1, help="How many steps are timed.")] = 5,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before that do not count.")] = 3,
    top: Annotated[int, typer.Option(min=0, help="How many of the most expensive operations are shown.")] = 12,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all of it as JSON.")] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a trace for chrome://tracing or Perfetto.")
    ] = None,
) -> None:
    """Where the time and the memory of a training step go, against what this machine can do. Trains a few steps of
    the stage in a temporary folder, and forgets them.

    Examples:

        fledge profile sft runs/fledgling/sft

        fledge profile pretrain pretrain.yaml dtype=float32 loop.micro_tokens=4096

        fledge profile grpo runs/fledgling/grpo --steps 3 --out profile.json --trace trace.json
    """
    from fledge.commands.profile import profile as look

    look(stage, config, overrides or [], steps, warm_up, top, out, trace)


@app.command()
def doctor() -> None:
    """What this machine can do, and what would be used: bf16, GPU, memory, sandbox, packages, switches.

    Examples:

        fledge doctor
    """
    from fledge.commands.doctor import doctor as look

    look()


add_corpus(app)
add_stages(app)


def main() -> None:
    """The console script. An error that the user can mend is a message, not a traceback (``FLEDGE_DEBUG=1``: both)."""
    try:
        app()
    except FledgeError as error:
        if os.environ.get("FLEDGE_DEBUG") == "1":
            raise
        from fledge.commands.text import plain

        sys.stdout.flush()
        print(plain(f"fledge: {error}"), file=sys.stderr)  # it may quote what a file holds
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nfledge: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `fledge inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
