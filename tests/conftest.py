"""What all rooms' tests share: small models, real data where it is, one thread a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side, and threads that wait for each other are slower than none; what a test before set (a
    command in this process sets threads) must not change another's last bits."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")


def tiny_config(**changes: object) -> DecoderConfig:
    values: dict[str, object] = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    }  # fmt: skip
    return DecoderConfig.model_validate({**values, **changes})


@pytest.fixture
def tiny_decoder() -> Decoder:
    """Weights large enough that attention matters, or its errors would not show."""
    decoder = Decoder(tiny_config(initializer_range=0.2))
    decoder.initialise(0)
    return decoder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real, licensed data: ``FLEDGE_DATA``, or a folder ``shared/data`` beside the checkout.

    Tests that use it skip where it is missing.
    """
    folder = Path(os.environ.get("FLEDGE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data are not here: {folder} (set FLEDGE_DATA)")
    return folder
