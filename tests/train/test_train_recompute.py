"""Recomputing blocks changes what is kept, not what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from train_examples import VOCABULARY, documents

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.batch import pack
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_gradients_with_less_kept(dtype: torch.dtype) -> None:
    config = DecoderConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    gradients: list[list[Tensor]] = []
    kept: list[int] = []
    for recompute in (False, True):
        decoder = Decoder(config)
        decoder.initialise(0)
        trainee = Trainee(decoder, OptimizerConfig(lr=1e-3), dtype, recompute=recompute)
        examples = documents()
        sizes = {}

        def remember(x: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda x: x):
            loss, _, _ = trainee.loss(pack(examples), Likelihood(), Likelihood().denominators(examples))
        kept.append(sum(sizes.values()))
        loss.backward()
        trainee.collect()
        gradients.append([p.grad for p in trainee.decoder.parameters() if p.grad is not None])
    assert kept[1] < kept[0] / 2
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
