"""Rebuild an activation in the backward pass from what the nodes of the graph hold anyway.

The input of a Llama's down_proj is `silu(gate) * up`, that of q, k, v, gate and up is `weight * normalised`. Autograd
keeps both factors of such a product for the product's own backward pass, which runs after that of the layer behind it.
So the layer need not keep the product: it multiplies again, and gets the same bits.

A recipe is found by walking from the activation's node through products and conversions of dtype, until every factor is
a tensor that a node has saved. Any other form, and any active saved-tensor hook, means that there is no recipe.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

_DEPTH = 4  # products and conversions on the way to the farthest factor


class Recipe(NamedTuple):
    """How to get an activation from the graph."""

    node: Any  # the activation's grad_fn
    dtype: torch.dtype


def find_recipe(x: Tensor) -> Recipe | None:
    """The recipe of an activation, or None where it has to be kept."""
    if x.grad_fn is None or _hooks_active() or not _can_rebuild(x.grad_fn, _DEPTH):
        return None
    return Recipe(x.grad_fn, x.dtype)


def rebuild(recipe: Recipe) -> Tensor:
    """The activation, bit for bit. Only before its own node has run its backward pass."""
    return _value(recipe.node, recipe.dtype)


def _hooks_active() -> bool:
    """Whether saved tensors go through a hook, which may move or recompute them."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _can_rebuild(node: Any, depth: int) -> bool:
    if depth == 0 or node is None:
        return False
    inputs = [before for before, _ in node.next_functions]
    if node.name() == "ToCopyBackward0":
        return _can_rebuild(inputs[0], depth - 1)
    if node.name() != "MulBackward0":
        return False
    saved = (node._saved_self, node._saved_other)
    return all(
        factor is not None or _can_rebuild(before, depth - 1) for factor, before in zip(saved, inputs, strict=True)
    )


def _value(node: Any, dtype: torch.dtype) -> Tensor:
    inputs = [before for before, _ in node.next_functions]
    if node.name() == "ToCopyBackward0":
        return _value(inputs[0], dtype).to(dtype)
    saved = (node._saved_self, node._saved_other)
    left, right = (
        factor if factor is not None else _value(before, dtype) for factor, before in zip(saved, inputs, strict=True)
    )
    return left * right
