"""The methods that can be trained and compared, each a name for a PEFT config.

LoRA, two-subspaces mixing and MoSLoRA are one formula, `B M A`, with M = I, M = [[I, I], [I, I]] and M learned.
"""

import difflib
from collections.abc import Callable
from typing import Any

from peft import LoraConfig, PeftConfig

from .adapter import MosLoraConfig
from .errors import ConfigError

_METHODS: dict[str, Callable[..., PeftConfig]] = {
    "lora": LoraConfig,
    "ts-mixing": lambda **settings: MosLoraConfig(mixer="butterfly", **settings),
    "moslora": lambda **settings: MosLoraConfig(mixer="learnable", init_mixer="kaiming_uniform", **settings),
    "moslora-orthogonal": lambda **settings: MosLoraConfig(mixer="learnable", init_mixer="orthogonal", **settings),
}

METHODS: tuple[str, ...] = tuple(_METHODS)


def peft_config(
    method: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: list[str] | str,
    task_type: str | None = "CAUSAL_LM",
    **extra: Any,
) -> PeftConfig:
    """The PEFT config of a method.

    Args:
        method: one of `METHODS`.
        rank: r.
        alpha: the update is scaled by alpha / rank.
        dropout: probability of dropping an input of the adapter.
        target_modules: names of the layers to adapt, or a regex, as in `peft.LoraConfig`.
        task_type: PEFT's task, for example "CAUSAL_LM"; None when the model is not one of transformers' tasks.
        extra: passed on to the config class.

    Raises:
        ConfigError: no such method.
    """
    if method not in _METHODS:
        close = difflib.get_close_matches(method, METHODS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"Unknown method {method!r}: choose one of {', '.join(METHODS)}.{hint}")
    return _METHODS[method](
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_modules, task_type=task_type, **extra
    )
