"""The PEFT tuner: LoraModel whose layers get their mixer as soon as PEFT has built them."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig, LoraModel
from peft.tuners.lora.layer import LoraLayer
from peft.utils import PeftType
from peft.utils.transformers_weight_conversion import (
    convert_peft_config_for_transformers,
    get_model_conversion_mapping,
)
from torch import Tensor, nn

from ..errors import UnsupportedError
from .config import MosLoraConfig
from .fold import fold_adapter, fold_state_dict
from .layers import MixedLayer, adopt_layer, mix, raw_shown
from .loading import check_factors
from .modules import MixedEmbeddingFactors


class MosLoraModel(LoraModel):
    """MoSLoRA for PEFT. Made by `get_peft_model(model, MosLoraConfig(...))`."""

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        _forbid_repacking(model)
        config = self.peft_config[adapter_name]
        if hasattr(getattr(model, "config", None), "model_type"):
            # PEFT maps the names of experts to transformers 5 for the type LORA only.
            with _as_lora(config):
                convert_peft_config_for_transformers(
                    config, model=model, conversions=get_model_conversion_mapping(model)
                )
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _check_target_module_compatiblity(self, peft_config: Any, model: nn.Module, target_name: str) -> None:
        with _as_lora(peft_config):  # the guard of Mamba's layers looks for the type LORA
            super()._check_target_module_compatiblity(peft_config, model, target_name)

    def _create_and_replace(
        self,
        lora_config: LoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        embedding = self._tied_embedding(lora_config, target_name)
        with raw_shown(embedding):
            super()._create_and_replace(
                lora_config, adapter_name, target, target_name, parent, current_key=current_key, **kwargs
            )
        if not isinstance(lora_config, MosLoraConfig):  # another adapter for a model that was turned to_lora
            return
        shared_mixer = None
        if embedding is not None and adapter_name in embedding.lora_embedding_mixer:
            # The tied layer applies the transpose of the embedding's update, so its mixer is the transpose too.
            shared_mixer = nn.Parameter(embedding.lora_embedding_mixer[adapter_name].t())
        for name, layer in getattr(parent, target_name).named_modules():
            if isinstance(layer, LoraLayer):
                adopt_layer(layer, _join(current_key, name))
                mix(layer, adapter_name, lora_config, shared_mixer)

    def add_weighted_adapter(self, adapters: list[str], weights: list[float], adapter_name: str, **kwargs: Any) -> None:
        """PEFT's combination of adapters. The result is a plain LoRA: its A and B already hold the mixers."""
        first = self.peft_config.get(adapters[0])
        if not isinstance(first, MosLoraConfig) or adapter_name in self.peft_config:
            super().add_weighted_adapter(adapters, weights, adapter_name, **kwargs)
            return
        # PEFT derives the new config from the first adapter's.
        self.peft_config[adapters[0]] = dataclasses.replace(first, mixer="identity", mixer_pattern={})
        try:
            super().add_weighted_adapter(adapters, weights, adapter_name, **kwargs)
        finally:
            self.peft_config[adapters[0]] = first

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: LoraConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        check_factors(model, adapter_name, remapped)
        return remapped

    @classmethod
    def _convert_state_dict_for_initial_model(
        cls,
        peft_model: Any,
        peft_config: MosLoraConfig,
        path_initial_model_for_weight_conversion: str,
        output_state_dict: dict[str, Tensor],
        kwargs: Any,
    ) -> dict[str, Tensor]:
        """PiSSA and its like turned into a plain LoRA on the untouched base, while saving."""
        # The initial adapter is loaded from here, and must not take its part out of the base weights again.
        peft_config.init_lora_weights = True
        peft_config.save_pretrained(path_initial_model_for_weight_conversion)
        converted = super()._convert_state_dict_for_initial_model(
            peft_model,
            peft_config,
            path_initial_model_for_weight_conversion,
            fold_state_dict(output_state_dict),
            kwargs,
        )
        peft_config.mixer, peft_config.mixer_pattern = "identity", {}
        return converted

    def subtract_mutated_init(
        self, output_state_dict: dict[str, Tensor], adapter_name: str, kwargs: Any = None
    ) -> dict[str, Tensor]:
        fold_adapter(self.model, adapter_name)
        return super().subtract_mutated_init(output_state_dict, adapter_name, kwargs)

    def _tied_embedding(self, config: LoraConfig, target_name: str) -> MixedLayer | None:
        if target_name not in (getattr(config, "target_modules_to_tie", None) or []):
            return None
        embedding = self.model.get_input_embeddings()
        is_mixed = isinstance(getattr(embedding, "lora_embedding_B", None), MixedEmbeddingFactors)
        return embedding if is_mixed else None


def _forbid_repacking(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU with AVX512-BF16.

    It does so in the first forward pass in eval mode. Later training steps then lose the gradients that should flow
    through these layers, and merging is corrupt, both without a word (bitsandbytes 0.50.2).

    Raises:
        UnsupportedError: a layer's weight is repacked already.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise UnsupportedError(
                f"{name}: bitsandbytes has repacked this 4-bit weight for inference on the CPU, because the model has "
                "run in eval mode. No gradient would flow through it. Load the model again and add the adapter before "
                "the first forward pass."
            )


@contextlib.contextmanager
def _as_lora(config: LoraConfig) -> Iterator[None]:
    own_type = config.peft_type
    config.peft_type = PeftType.LORA
    try:
        yield
    finally:
        config.peft_type = own_type


def _join(target: str, inner: str) -> str:
    parts = [part for part in inner.split(".") if part and part != "base_layer"]
    return ".".join([target, *parts])
