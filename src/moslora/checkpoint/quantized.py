"""The weights that a run on a quantised base really had: what bitsandbytes' numbers stand for."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError

BLOCK = 64  # weights that share a constant, bitsandbytes' default
INT8_STEPS = 127


@dataclass(frozen=True)
class Quantization:
    """How the base of a run was quantised.

    Attributes:
        kind: of bitsandbytes: 4-bit NormalFloat or 4-bit float, or LLM.int8().
        double: whether the constants of 4-bit weights are quantised too.
        skipped: patterns of the names of modules that were not, as transformers' llm_int8_skip_modules; None for its
            default, which is the output head.
    """

    kind: Literal["nf4", "fp4", "int8"]
    double: bool = True
    skipped: tuple[str, ...] | None = None

    def layers(self, model: nn.Module) -> set[str]:
        """Names of the modules that transformers quantises on loading, by its own rule.

        Args:
            model: the unquantised one; may be on the meta device.
        """
        from transformers.quantizers.base import HfQuantizer
        from transformers.quantizers.quantizers_utils import should_convert_module

        skipped = list(self.skipped) if self.skipped is not None else None
        patterns = HfQuantizer.get_modules_to_not_convert(model, skipped, model._keep_in_fp32_modules)
        return {
            name
            for name, module in model.named_modules()
            if type(module) is nn.Linear and should_convert_module(name, patterns)
        }

    def dequantized(self, weight: Tensor) -> Tensor:
        """What is left of a weight after it was quantised, in its own shape and dtype.

        In training, bitsandbytes rounds the dequantised weight to the dtype of the base, so this is exactly the matrix
        beside which the adapter was trained, if the base was loaded in the dtype that its files have.

        Args:
            weight: (d_out, d_in), as loaded.

        Raises:
            ConfigError: bitsandbytes is not installed.
        """
        try:
            from bitsandbytes import functional
        except ImportError:
            raise ConfigError("Dequantised weights need bitsandbytes: pip install 'moslora[quantized]'.") from None
        if self.kind == "int8":
            # bitsandbytes takes the weight in float16, whatever it was loaded in.
            codes, largest, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
            return (codes.double() * largest.double()[:, None] / INT8_STEPS).to(weight.dtype)
        codes, state = functional.quantize_4bit(
            weight.contiguous(), blocksize=BLOCK, compress_statistics=self.double, quant_type=self.kind
        )
        return functional.dequantize_4bit(codes, state)
