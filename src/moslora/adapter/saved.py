"""Bytes that autograd keeps between forward and backward pass, by walking the graph.

Saved-tensor hooks would see the same tensors, but while they are active no activation is rebuilt (kernel "remat"). The
walk looks at what the nodes hold, whoever made them. It needs shapes only, so it also counts on the meta device.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def saved_bytes(output: Tensor, model: nn.Module) -> int:
    """Bytes of all storages that the graph of an output holds, without those of the model's parameters and buffers.

    Layers under reentrant gradient checkpointing count with their inputs. Under the other kind, looking at a tensor
    would compute it again, so everything would be counted.

    Args:
        output: what the model, or a loss, returned.
        model: whose parameters and buffers are there anyway.
    """
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
