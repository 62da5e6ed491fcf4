"""Bytes that autograd keeps between forward and backward pass, by walking the graph.

Saved-tensor hooks would count the same tensors, but while they are active an activation is never rebuilt. The walk
looks at what the nodes hold, whoever made them.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def saved_bytes(output: Tensor, model: nn.Module) -> int:
    """Bytes of all storages that the graph of `output` holds, without those of the model's parameters and buffers."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    storages = {}
    for tensor in _held(output.grad_fn):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
    return sum(storage.nbytes() for storage in storages.values())


def _held(root: Any) -> Iterator[Tensor]:
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        names = [name for name in dir(node) if name.startswith("_saved_")]
        values = [getattr(node, name) for name in names]
        values += getattr(node, "saved_tensors", ())  # of a Function written in Python
        values += getattr(node, "__dict__", {}).values()
        for value in values:
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    yield item
