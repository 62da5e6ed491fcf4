"""The configuration of a MoSLoRA adapter: LoraConfig and which mixer goes where."""

import enum
import re
import warnings
from dataclasses import dataclass, field
from typing import get_args

from peft import LoraConfig
from peft.utils.other import get_pattern_key

from ..equation import MIXERS, Mixer, MixerInit, check_mixer_init, check_mixer_rank
from ..errors import ConfigError, MoSLoRAWarning
from ..ops import Kernel, check_kernel

# Inits after which B is zero or unrelated to the base weight, so that the mixer is free to change the product.
FREE_INITS = (True, False, "gaussian", "eva")


class MosPeftType(str, enum.Enum):  # noqa: UP042 - PEFT cuts the name out of str(), which StrEnum shortens
    """PEFT's own list of types is closed; stock PEFT stops at an unknown one, where "LORA" would lose the mixer."""

    MOSLORA = "MOSLORA"


@dataclass
class MosLoraConfig(LoraConfig):
    """LoRA with a mixer between A and B: `delta W = scale * B @ M @ A` (arXiv:2406.11909).

    Every argument of `peft.LoraConfig` keeps its meaning.

    Args:
        mixer: "learnable" trains an r x r mixer (MoSLoRA), "frozen" draws the same mixer and leaves it as it is,
            "butterfly" fixes [[I, I], [I, I]] (two-subspaces mixing, even rank), "identity" is plain LoRA.
            "core" is FLoRA's core tensor (arXiv:2405.14739), with the kernel of a convolution in it and zero at the
            start, with A and B drawn at random.
        init_mixer: start of a learnable or frozen mixer: "kaiming_uniform", "orthogonal", "normal", "identity", "zeros"
            or "gradient", which `moslora.initialize_mixer` has to compute before the first forward pass. With an
            `init_lora_weights` that is derived from the base weight, the orthogonal matrix nearest to it is taken.
        mixer_pattern: module name or regex -> mixer, for layers that differ from `mixer`. Matched as `rank_pattern`
            is, against the end of the module's name: `{".*vision_tower.*": "identity"}`.
        kernel: how linear layers compute: "auto", "reference" (PEFT's own code), "fused" or "remat"; see `moslora.ops`.
            It changes speed and memory, never the form of the weights.

    Raises:
        ConfigError: an unknown mixer, init or kernel, or a butterfly mixer with an odd rank.
    """

    mixer: Mixer = field(
        default="learnable", metadata={"help": f"Mixer between A and B, one of {', '.join(get_args(Mixer))}."}
    )
    init_mixer: MixerInit = field(
        default="kaiming_uniform",
        metadata={"help": f"Start of a learnable or frozen mixer, one of {', '.join(get_args(MixerInit))}."},
    )
    mixer_pattern: dict[str, Mixer] | None = field(
        default_factory=dict,
        metadata={"help": "Module name or regex -> mixer, for layers that differ from `mixer`."},
    )
    kernel: Kernel = field(
        default="auto", metadata={"help": f"How linear layers compute, one of {', '.join(get_args(Kernel))}."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MosPeftType.MOSLORA
        self.mixer_pattern = dict(self.mixer_pattern or {})
        check_mixer_init(self.init_mixer)
        check_kernel(self.kernel)
        for kind in (self.mixer, *self.mixer_pattern.values()):
            if kind not in MIXERS:
                raise ConfigError(f"Unknown mixer {kind!r}: choose one of {', '.join(MIXERS)}.")
        if not self.rank_pattern:
            for kind in (self.mixer, *self.mixer_pattern.values()):
                check_mixer_rank(kind, self.r, "LoraConfig")
        for pattern in self.mixer_pattern:
            _check_regex(pattern)
        if self._never_learns() and not self.inference_mode:
            warnings.warn(
                "init_mixer='zeros' with B = 0 never learns: every gradient of A, M and B is zero (Appendix C of "
                "arXiv:2406.11909). Use 'kaiming_uniform' or 'orthogonal', unless this is the ablation.",
                MoSLoRAWarning,
                stacklevel=3,
            )

    def mixer_of(self, module_name: str) -> Mixer:
        """The mixer of one adapted layer, by its name in the base model."""
        patterns = self.mixer_pattern or {}
        return patterns.get(get_pattern_key(patterns.keys(), module_name), self.mixer)

    def _never_learns(self) -> bool:
        zero_B = self.init_lora_weights in (True, "gaussian", "eva")
        return self.mixer in ("learnable", "frozen") and self.init_mixer == "zeros" and zero_B


def _check_regex(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"mixer_pattern holds {pattern!r}, which is not a regular expression: {error}.") from None
