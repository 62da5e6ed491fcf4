"""The methods that can be trained and compared, each a name for a PEFT config.

LoRA, two-subspaces mixing and MoSLoRA are one formula, `B M A`, with M = I, M = [[I, I], [I, I]] and M learned.
"""

import difflib
from collections.abc import Callable
from typing import Any

from peft import LoraConfig, PeftConfig

from .adapter import Kernel, MosLoraConfig
from .errors import ConfigError

# Each takes the kernel of moslora.ops and the settings of a LoraConfig. PEFT's own LoRA has but one kernel.
_METHODS: dict[str, Callable[..., PeftConfig]] = {
    "lora": lambda kernel, **settings: LoraConfig(**settings),
    "ts-mixing": lambda **settings: MosLoraConfig(mixer="butterfly", **settings),
    "moslora": lambda **settings: MosLoraConfig(mixer="learnable", init_mixer="kaiming_uniform", **settings),
    "moslora-orthogonal": lambda **settings: MosLoraConfig(mixer="learnable", init_mixer="orthogonal", **settings),
}
STOCK = ("lora",)

METHODS: tuple[str, ...] = tuple(_METHODS)


def peft_config(
    method: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: list[str] | str,
    task_type: str | None = "CAUSAL_LM",
    kernel: Kernel = "auto",
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
        kernel: how linear layers compute, for methods that are not PEFT's own; see `MosLoraConfig`.
        extra: passed on to the config class.

    Raises:
        ConfigError: no such method, or a kernel for a method that has none to choose.
    """
    if method not in _METHODS:
        close = difflib.get_close_matches(method, METHODS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"Unknown method {method!r}: choose one of {', '.join(METHODS)}.{hint}")
    if method in STOCK and kernel != "auto":
        raise ConfigError(f"Method {method!r} is PEFT's own code and has no kernel {kernel!r}: leave the kernel out.")
    return _METHODS[method](
        kernel=kernel,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type=task_type,
        **extra,
    )
