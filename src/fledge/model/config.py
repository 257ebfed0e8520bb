"""Shape of a decoder, with Hugging Face's names, and the number of its parameters and operations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fledge.core.config import Config

Architecture = Literal["Qwen2ForCausalLM", "LlamaForCausalLM"]


class DecoderConfig(Config):
    """A Qwen2-shaped decoder: pre-norm RMSNorm, rotary positions, grouped queries, SwiGLU (SPEC A.4).

    ``LlamaForCausalLM`` is the same without biases (CT-LLM).
    """

    architecture: Architecture = "Qwen2ForCausalLM"
    vocab_size: int = Field(gt=0, description="rows of the embedding")
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0, description="kept apart: it need not be hidden_size / num_attention_heads")
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02

    @model_validator(mode="after")
    def _heads(self) -> DecoderConfig:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs")
        return self

    @property
    def attention_bias(self) -> bool:
        """Biases on q, k and v (Qwen); none (Llama)."""
        return self.architecture == "Qwen2ForCausalLM"

    @property
    def embedding_parameters(self) -> int:
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def body_parameters(self) -> int:
        """Parameters without embedding and head."""
        h, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        attention = 2 * h * queries + 2 * h * keys + (queries + 2 * keys if self.attention_bias else 0)
        return self.num_hidden_layers * (attention + 3 * h * self.intermediate_size + 2 * h) + h

    @property
    def parameters(self) -> int:
        return self.body_parameters + self.embedding_parameters

    def training_flops(self, context: float) -> float:
        """Floating-point operations for one trained token, forward and backward (SPEC A.5).

        Six for each weight of a product, and 12·layers·queries·context for attention, of which a causal token on
        average needs half. ``context`` is the mean number of tokens that a segment holds.
        """
        queries = self.num_attention_heads * self.head_dim
        products = self.body_parameters + self.vocab_size * self.hidden_size
        return 6.0 * products + 6.0 * self.num_hidden_layers * queries * context
