"""What the training stages share: settings, the order of examples, writing the model out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.artefact import Work, produce
from fledge.core.errors import ArtefactError, ConfigError, DataError
from fledge.core.machine import compute_dtype, machine
from fledge.model.adapters import LoraConfig, add_adapters, is_adapter, merge, save_adapters, tokenizer_folder
from fledge.model.compiled import compile_model, compiled, worth_compiling
from fledge.model.decoder import Decoder
from fledge.model.dropout import Dropout
from fledge.model.hf import load_config, load_decoder, save_decoder, save_generation
from fledge.model.scalar import ScalarDecoder, save_scalar
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.estimate import Compute
from fledge.train.loop import Loop, LoopConfig, Probe, Source
from fledge.train.mesh import Mesh, barrier, open_mesh, sum_over_ranks
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

S = TypeVar("S", bound=Source)
D = TypeVar("D", bound=Decoder)


class TrainingConfig(core_config.WithPresets):
    """Keys that every training stage has."""

    optimizer: OptimizerConfig
    loop: LoopConfig = LoopConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="what products are computed in; auto: bf16 where the machine has instructions for it",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="compile attention, the head and the passes between products; auto: where there is a C++ compiler "
        "and the run is long enough to pay for it (half a minute the first time)",
    )
    recompute: bool = Field(
        default=False,
        description="keep only the input of each block and run it again in the backward pass: memory for time",
    )
    lora: LoraConfig | None = Field(
        default=None, description="train adapters of the projections and freeze the model; {} for the defaults"
    )
    seed: int = 0

    @property
    def compute(self) -> Compute:
        merging = self.optimizer.merging
        kept = merging.bytes_a_weight if merging is not None else 0
        return Compute(self.dtype, self.optimizer.name, self.compile, kept)


class Order(Protocol):
    """The order in which a source takes examples, by number. All that comes next follows from ``state()``."""

    @property
    def epochs(self) -> float:
        """Taken, over what there is."""
        ...

    @property
    def never_taken(self) -> int: ...

    def take_many(self, count: int) -> list[int]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class CursorOrder:
    """An order of which all follows from how many of ``count`` rows were ``taken``."""

    count: int
    taken: int

    def take(self) -> int:
        raise NotImplementedError

    def take_many(self, count: int) -> list[int]:
        return [self.take() for _ in range(count)]

    @property
    def epochs(self) -> float:
        return self.taken / self.count

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]


class EpochOrder(CursorOrder):
    """The order in which examples are taken: a fresh permutation an epoch, from the seed. The cursor is one number.
    Orders of one seed with another ``stream`` are others."""

    def __init__(self, count: int, seed: int, stream: int = 0) -> None:
        if count <= 0:
            raise DataError("there is nothing to train on: the data hold no usable example")
        self.count, self.seed, self.stream = count, seed, stream
        self.taken = 0
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def of_epoch(self, epoch: int) -> np.ndarray:
        """(count,) the permutation of an epoch; the last one asked for is kept."""
        if epoch != self._epoch:
            counter = np.array([0, 0, 0, self.stream], np.uint64)
            bits = np.random.Philox(key=[self.seed, epoch], counter=counter)
            self._order = np.random.Generator(bits).permutation(self.count)
            self._epoch = epoch
        return self._order

    def take(self) -> int:
        epoch, place = divmod(self.taken, self.count)
        self.taken += 1
        return int(self.of_epoch(epoch)[place])

    @property
    def never_taken(self) -> int:
        return max(0, self.count - self.taken)


def load_start(folder: Path) -> tuple[Decoder, Tokenizer]:
    """The model that a stage starts from, in float32, with its tokenizer."""
    return load_with_tokenizer(folder, load_decoder)


def load_with_tokenizer(folder: Path, load: Callable[[Path], D]) -> tuple[D, Tokenizer]:
    """What ``load`` makes of a folder, and the tokenizer there. Raises ArtefactError for ids without a row."""
    if not Path(folder).exists():
        raise ArtefactError(f"{folder}: there is no such model folder")
    decoder, tokenizer = load(folder), Tokenizer.load(tokenizer_folder(folder))
    if tokenizer.vocab_size > decoder.config.vocab_size:
        raise ArtefactError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids but the embedding {decoder.config.vocab_size} rows"
        )
    return decoder, tokenizer


@contextmanager
def training_work(
    stage: str, config: TrainingConfig, out: Path, redo: bool, **inputs: Path | Sequence[Path] | None
) -> Iterator[tuple[Work, Mesh]]:
    """`produce` for one process or for the ranks that torchrun started: the first makes and finishes the artefact, the
    others come in when its folder is there and leave when it has its name."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if (merging := config.optimizer.merging) is not None:
        given |= {"merging_base": merging.base, "merging_sft": merging.sft}
    with open_mesh(machine().device) as mesh:
        with ExitStack() as stack:
            if mesh.first:
                making = produce(
                    out, kind="model", stage=stage, config=config, inputs=given, seed=config.seed, redo=redo
                )
                work = stack.enter_context(making)
            else:
                work = Work(out, out.parent / f".{out.name}.partial", done=False)
            work.done = sum_over_ranks([float(work.done)], mesh)[0] > 0
            try:
                yield work, mesh
            finally:
                compile_model(False)  # the next stage of a recipe begins as one that is run alone
        barrier(mesh)


@dataclass(frozen=True)
class Beside:
    """A module in the same loop as the policy, and how it is trained. It is written into a folder of its name."""

    decoder: ScalarDecoder
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class Training(Generic[S]):
    """What a stage trains, as its ``prepare(config, work, mesh)`` made it. `train` runs it to the end; ``fledge
    profile`` times a few steps of it. ``chat``: how the model that is written out generates; ``dropout``: of the
    policy, a rate; ``frozen``: steps at the start in which the policy is not trained, only what is ``beside`` it."""

    decoder: Decoder
    tokenizer: Tokenizer
    source: S
    objective: Objective
    steps: int
    probe: Probe | None = None
    chat: bool = True
    dropout: float = 0.0
    beside: Mapping[str, Beside] = field(default_factory=dict)
    frozen: int = 0

    def loop(
        self, config: TrainingConfig, folder: Path, title: str, mesh: Mesh, make: Callable[..., Trainee] = Trainee
    ) -> Loop:
        """Takes the decoders over. ``make``: what makes the modules in training of them, called as `Trainee` is."""
        _require_peak("optimizer", config.optimizer, self.steps - self.frozen)
        for name, module in self.beside.items():
            _require_peak(f"{name}.optimizer", module.optimizer, self.steps)
        torch.manual_seed(config.seed)
        dtype = compute_dtype(config.dtype)
        set_compiled(config.compile, self.steps * self.decoder.config.parameters, dtype)
        if config.lora is not None:
            _require_base(self.decoder, config.lora)
            add_adapters(self.decoder, config.lora, config.seed)
        policy = make(self.decoder, config.optimizer, dtype, mesh, config.recompute, self.frozen)
        policy.dropout = Dropout(self.dropout, config.seed) if self.dropout else None
        trainees = {"policy": policy}
        for name, module in self.beside.items():
            trainees[name] = make(module.decoder, module.optimizer, dtype, mesh, config.recompute)
        return Loop(config.loop, trainees, self.source, self.objective, self.steps, folder, title, mesh, self.probe)


def _require_peak(key: str, optimizer: OptimizerConfig, steps: int) -> None:
    if (warmup := optimizer.schedule.warmup) >= max(2, steps):
        raise ConfigError(
            f"{key}.schedule.warmup={warmup:g} steps, but the run has {steps}: the peak would not be reached; give "
            "fewer, or a share of the steps below 1"
        )


def _require_base(decoder: Decoder, lora: LoraConfig) -> None:
    """A folder of adapters must be able to name what they were put on. Raises `ConfigError` where it is not."""
    if lora.merged:
        return
    why = ""
    if isinstance(decoder, ScalarDecoder):
        why = "a model with a scalar head is written whole"
    elif decoder.folder is None:
        why = "the model was not read from a folder that adapters could name"
    elif is_adapter(decoder.folder):
        why = f"{decoder.folder} holds adapters itself, and adapters on adapters are no folder that peft reads"
    elif decoder.config != load_config(decoder.folder):
        why = "the context is longer than the model's, which a folder of adapters cannot say"
    if why:
        raise ConfigError(f"lora: {why}; give lora.merged=true for a whole model")


def train(config: TrainingConfig, work: Work, training: Training[S], mesh: Mesh) -> None:
    """Run the loop in the artefact's folder and write the trained model there as a Hugging Face folder."""
    loop = training.loop(config, work.folder, work.out.name, mesh)
    policy = loop.trainees["policy"]
    trained = sum(p.numel() for p in policy.decoder.parameters() if p.requires_grad)
    summary = loop.run()
    for name, trainee in loop.trainees.items():
        final = trainee.whole_decoder()
        if mesh.first and name == "policy":
            write_model(final, training.tokenizer, work.folder, training.chat, config.lora)
        elif mesh.first:
            write_model(final, training.tokenizer, work.folder / name, training.chat)
    work.transient.add("snapshots")
    barrier(mesh)
    dtype = str(policy.dtype).removeprefix("torch.")
    work.metrics |= {
        "parameters": policy.decoder.config.parameters, "trained_parameters": trained, "steps": training.steps,
        "dtype": dtype, "compiled": compiled(), **summary,
    }  # fmt: skip


def set_compiled(choice: str, work: int, dtype: torch.dtype) -> None:
    """Compile or not, for a run of ``work`` steps x parameters. From the configuration alone: a run that goes on must
    compute as it did before. Raises ConfigError for ``on`` where it cannot be."""
    why = compile_model(worth_compiling(choice, work), dtype)
    if why and choice == "on":
        raise ConfigError(f"compile=on: {why}; install one, or leave compile=auto")


def write_model(
    decoder: Decoder, tokenizer: Tokenizer, folder: Path, chat: bool, lora: LoraConfig | None = None
) -> None:
    """``chat``: generation ends at the end of a turn and samples as chat models do (SPEC L.2); else greedy text.
    With ``lora`` a folder of adapters that names the model they belong to, or the whole model where it is merged.
    What has a scalar head does not generate, and is written whole."""
    tokenizer.save(folder)
    if lora is not None and lora.merged:
        decoder = merge(decoder)
    if isinstance(decoder, ScalarDecoder):
        save_scalar(decoder, folder, tokenizer.endoftext)
        return
    ends = [tokenizer.im_end, tokenizer.endoftext] if chat else [tokenizer.endoftext]
    generation: dict[str, Any] = {
        "bos_token_id": tokenizer.endoftext,
        "eos_token_id": ends,
        "pad_token_id": tokenizer.endoftext,
        "max_new_tokens": 256,
    }
    if chat:
        generation |= {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.0}
    else:
        generation |= {"do_sample": False}
    if lora is not None and not lora.merged:
        assert decoder.folder is not None  # _require_base has seen to it
        save_generation(folder, generation)  # no config.json: transformers would take the folder for a whole model
        save_adapters(decoder, lora, decoder.folder.absolute(), folder)
    else:
        save_decoder(decoder, folder, generation)


def with_context(decoder: D, context: int) -> D:
    """Record the length that the model is trained for, where it is longer than what the model says."""
    if context > decoder.config.max_position_embeddings:
        decoder.config = decoder.config.model_copy(update={"max_position_embeddings": context})
    return decoder
