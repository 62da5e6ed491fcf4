"""Models with random weights in real shapes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]  # those of the paper


class Shape(NamedTuple):
    """A Llama: sizes as in its config."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {
    "llama3-8b": Shape(4096, 14336, 32, 32, 8, 128256),
    "llama-60m": Shape(512, 1376, 8, 8, 8, 32000),
    "llama-28m": Shape(384, 1024, 6, 6, 6, 24000),
    "tiny": Shape(64, 128, 2, 4, 2, 256),
}


def llama(name: str, dtype: torch.dtype, device: str, layers: int | None = None) -> LlamaForCausalLM:
    """A Llama of a known shape, with fewer layers if asked for, ready to train."""
    shape = SHAPES[name]
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=32768,
        use_cache=False,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model.train()


class OneLinear(nn.Module):
    """A linear layer alone, under the name `linear`."""

    def __init__(self, d_in: int, d_out: int, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(d_in, d_out, bias=False, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Block(nn.Module):
    """Decoder layers of a Llama, from embeddings to embeddings, with a gradient for the input as in a deeper model."""

    def __init__(self, name: str, layers: int, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.model = llama(name, dtype, device, layers).model
        self.model.embed_tokens = None

    def forward(self, x: Tensor) -> Tensor:
        return self.model(inputs_embeds=x).last_hidden_state
