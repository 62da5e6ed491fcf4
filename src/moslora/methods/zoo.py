"""A name -> the PEFT config of a method.

LoRA, two-subspaces mixing and MoSLoRA are one formula, `B M A`, with M = I, M = [[I, I], [I, I]] and M learned; the
arms of the ablation differ from them in one thing each. docs/methods.md says what each is for.
"""

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftConfig

from ..adapter import Kernel, MosLoraConfig, to_lora
from ..errors import ConfigError
from .from_file import read_config

FULL = "full"  # no adapter: every parameter of the model is trained
FILE = "file:"  # before the path of an adapter_config.json
LORA_PLUS_RATIO = 16.0  # learning rate of B over that of A: what the authors of LoRA+ (arXiv:2402.12354) advise

Builder = Callable[..., PeftConfig]
Start = Callable[[torch.nn.Module], Any]


class Method(NamedTuple):
    """How one method is built.

    Attributes:
        config: takes r, alpha, dropout, target_modules, task_type, and kernel if it is not PEFT's own code.
        start: changes the fresh adapter before training.
        rate_of_B: learning rate of B over that of everything else.
        has_kernel: whether `moslora.ops` computes its linear layers.
        rank_step: ranks are multiples of this.
        patterns: settings by the names of modules that it knows.
    """

    config: Builder
    start: Start | None = None
    rate_of_B: float = 1.0
    has_kernel: bool = False
    rank_step: int = 1
    patterns: tuple[str, ...] = ("rank_pattern", "alpha_pattern")


def _lora(**settings: Any) -> Builder:
    def build(r: int, alpha: float, dropout: float, **rest: Any) -> PeftConfig:
        return LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, **settings, **rest)

    return build


def _moslora(init: str = "kaiming_uniform", mixer: str = "learnable", **settings: Any) -> Builder:
    def build(r: int, alpha: float, dropout: float, **rest: Any) -> PeftConfig:
        mixing: dict[str, Any] = {"mixer": mixer, "init_mixer": init, **settings, **rest}
        return MosLoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, **mixing)

    return build


def _lycoris(config_class: type[LoHaConfig] | type[LoKrConfig]) -> Builder:
    """LoHa and LoKr form their update as a whole, so there is no input that dropout could act on."""

    def build(r: int, alpha: float, dropout: float, **rest: Any) -> PeftConfig:
        return config_class(r=r, alpha=alpha, **rest)

    return build


def _adalora(r: int, alpha: float, dropout: float, **rest: Any) -> PeftConfig:
    """Target rank = initial rank, as in the paper's Appendix B.1: no rank is ever taken away, and no step counts."""
    return AdaLoraConfig(
        init_r=r,
        target_r=r,
        total_step=1,
        lora_alpha=alpha,
        lora_dropout=dropout,
        **rest,
    )


@torch.no_grad()
def _scale_A(adapted: torch.nn.Module) -> None:
    """A / sqrt(3): a Kaiming-uniform (a = sqrt(5)) mixer has E[M^T M] = I / 3, so it makes A that much smaller."""
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name or ".lora_embedding_A." in name:
            parameter.div_(math.sqrt(3))


_mixed = functools.partial(Method, has_kernel=True, patterns=("rank_pattern", "alpha_pattern", "mixer_pattern"))
_MIXED: dict[str, Method] = {
    "moslora": _mixed(_moslora()),
    "ts-mixing": _mixed(_moslora(mixer="butterfly"), rank_step=2),
    **{f"moslora-{init}": _mixed(_moslora(init)) for init in ("orthogonal", "normal", "identity")},
    "moslora-zeros": _mixed(_moslora("zeros")),
    "moslora-gradient": _mixed(_moslora("gradient")),
    "moslora-frozen": _mixed(_moslora(mixer="frozen")),
    "moslora-folded": _mixed(_moslora(), start=to_lora),
    "flora": _mixed(_moslora(mixer="core")),
    "moslora-dora": _mixed(_moslora(use_dora=True)),
}
_METHODS: dict[str, Method] = {
    "lora": Method(_lora()),
    **_MIXED,
    "lora-scaled": Method(_lora(), start=_scale_A),
    "lora-plus": Method(_lora(), rate_of_B=LORA_PLUS_RATIO),
    "rslora": Method(_lora(use_rslora=True)),
    "pissa": Method(_lora(init_lora_weights="pissa")),
    "dora": Method(_lora(use_dora=True)),
    "adalora": Method(_adalora, patterns=()),
    "loha": Method(_lycoris(LoHaConfig)),
    "lokr": Method(_lycoris(LoKrConfig)),
}

METHODS: tuple[str, ...] = (*_METHODS, FULL)
"""Every name but `file:CONFIG.json`."""


def find_method(name: str) -> Method:
    """How a method is built.

    Raises:
        ConfigError: no such method, or it is full fine-tuning, which has no PEFT config.
    """
    if name.startswith(FILE):
        return Method(lambda task_type, **_: read_config(name.removeprefix(FILE), task_type))
    if name in _METHODS:
        return _METHODS[name]
    if name == FULL:
        raise ConfigError(f"Method {FULL!r} trains the model itself and has no adapter: choose another one here.")
    close = difflib.get_close_matches(name, METHODS, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"Unknown method {name!r}: choose one of {', '.join(METHODS)}, or {FILE}CONFIG.json.{hint}")


def peft_config(
    method: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: list[str] | str,
    task_type: str | None = "CAUSAL_LM",
    kernel: Kernel = "auto",
    modules_to_save: list[str] | None = None,
    **patterns: dict[str, Any],
) -> PeftConfig:
    """The PEFT config of a method.

    Args:
        method: one of `METHODS` but "full", or "file:" and the path of an adapter_config.json, which then says
            everything else.
        rank: r.
        alpha: the update is scaled by alpha / rank; by alpha / sqrt(rank) with rslora.
        dropout: probability of dropping an input of the adapter; loha and lokr have no such dropout.
        target_modules: names of the layers to adapt, or a regex, as in `peft.LoraConfig`.
        task_type: PEFT's task, for example "CAUSAL_LM"; None when the model is not one of transformers' tasks.
        kernel: how linear layers compute, for methods that are not PEFT's own; see `MosLoraConfig`.
        modules_to_save: names of modules that are trained as a whole beside the adapter.
        patterns: `rank_pattern`, `alpha_pattern` and `mixer_pattern`, each a regex of module names -> the value there.

    Raises:
        ConfigError: no such method, a kernel or a pattern for a method that has none to choose, or a file that cannot
            be used.
    """
    found = find_method(method)
    if kernel != "auto" and not found.has_kernel:
        raise ConfigError(f"Method {method!r} is PEFT's own code and has no kernel {kernel!r}: leave the kernel out.")
    if unknown := sorted(patterns.keys() - set(found.patterns)):
        known = ", ".join(found.patterns) or "none"
        raise ConfigError(f"Method {method!r} has no {', '.join(unknown)}: it knows {known}. Leave them out.")
    extra: dict[str, Any] = {"kernel": kernel} if found.has_kernel else {}
    if modules_to_save:
        extra["modules_to_save"] = modules_to_save
    settings = {"alpha": alpha, "dropout": dropout, "target_modules": target_modules, "task_type": task_type}
    return found.config(r=rank, **settings, **patterns, **extra)
