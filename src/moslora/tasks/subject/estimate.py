"""Parameters and memory of a run, from the configs of the pipeline alone: nothing is downloaded or allocated.

The networks are built on the meta device, where tensors have a shape and no content. One forward pass there shows
which tensors autograd would keep.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...adapter import saved_bytes
from ...errors import ConfigError
from ...methods import trained_parameters
from ..models import EMBEDDED, resolve_dtype
from .attach import attach_adapter
from .config import SubjectTrainConfig, check
from .pipeline import TEXT_ENCODERS, UNET, cast, locate, quiet_diffusers

FORMULAS = (
    "weights: parameters x bytes of dtype; the VAE float32 where its config asks for it",
    "adapter, gradients: 4 bytes per trained parameter each; AdamW: 8 bytes, in 8 bits: 2",
    "activations: what a forward pass of micro_batch_size pictures keeps for the backward pass, fused attention",
)


class Estimate(NamedTuple):
    """Numbers of parameters, and bytes on one device."""

    total: int
    trainable: dict[str, int]  # by part of the pipeline
    dtype: str
    weight_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def bytes(self) -> int:
        """The sum. CUDA's context and fragmentation, and drawing validation pictures, come on top."""
        parts = self.weight_bytes + self.adapter_bytes + self.gradient_bytes + self.optimizer_bytes
        return parts + self.activation_bytes


def estimate(config: SubjectTrainConfig) -> Estimate:
    """Estimate a run.

    Args:
        config: all settings; `config.model` may be a folder that holds nothing but the configs. Photographs are not
            looked at: they are taken to be squares of the resolution.

    Raises:
        ConfigError: a setting, pipeline or method that cannot be used.
    """
    check(config)
    if config.start_from:
        raise ConfigError("An estimate is of a fresh adapter: leave start_from out, and give rank and target_modules.")
    dtype = resolve_dtype(config.dtype)
    place = str(locate(config.model)) if config.model == EMBEDDED else config.model
    with torch.device("meta"):
        networks = _empty_networks(place, dtype)
        total = sum(parameter.numel() for each in networks.values() for parameter in each.parameters())
        weights = sum(each.nbytes for network in networks.values() for each in network.parameters())
        names = [UNET, *(name for name in TEXT_ENCODERS if name in networks and config.train_text_encoders)]
        adapted = {name: attach_adapter(networks[name], name, config) for name in names}
    trainable = {name: trained_parameters(model) for name, model in adapted.items()}
    kept = _kept_by_unet(adapted[UNET], networks, config)
    kept += sum(_kept_by_text(adapted[name], networks[name]) for name in names[1:])
    count = sum(trainable.values())
    return Estimate(
        total=total,
        trainable=trainable,
        dtype=str(dtype).removeprefix("torch."),
        weight_bytes=weights,
        adapter_bytes=4 * count,
        gradient_bytes=4 * count,
        optimizer_bytes=(8 if config.optimizer == "adamw" else 2) * count,
        activation_bytes=kept,
    )


def _empty_networks(place: str, dtype: torch.dtype) -> dict[str, Any]:
    """The networks of a pipeline on the meta device, by name."""
    import transformers

    diffusers = quiet_diffusers()
    unet_config = diffusers.UNet2DConditionModel.load_config(place, subfolder=UNET)
    vae = diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(place, subfolder="vae"))
    networks: dict[str, Any] = {
        UNET: cast(diffusers.UNet2DConditionModel.from_config(unet_config), dtype),
        "vae": vae if vae.config.force_upcast else cast(vae, dtype),
    }
    is_sdxl = unet_config.get("addition_embed_type") == "text_time"
    classes = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection)
    for name, network_class in zip(TEXT_ENCODERS, classes if is_sdxl else classes[:1], strict=False):
        config = transformers.CLIPTextConfig.from_pretrained(place, subfolder=name)
        networks[name] = cast(network_class(config), dtype)
    return networks


class _FusedAttention:
    """Attention of diffusers as a GPU's fused kernel keeps it: without its probabilities."""

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(values: Tensor) -> Tensor:
            batch, tokens, width = values.shape
            return values.view(batch, tokens, attention.heads, width // attention.heads).transpose(1, 2)

        query, key, value = (
            heads(layer(source))
            for layer, source in (
                (attention.to_q, hidden_states),
                (attention.to_k, context),
                (attention.to_v, context),
            )
        )
        mixed = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
        return attention.to_out[0](mixed.transpose(1, 2).flatten(2))


def _kept_by_unet(adapted: PeftModel, networks: dict[str, Any], config: SubjectTrainConfig) -> int:
    unet, vae = networks[UNET], networks["vae"]
    unet.set_attn_processor(_FusedAttention())
    side = config.resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    batch, dtype = config.micro_batch_size, unet.dtype
    tokens = networks["text_encoder"].config.max_position_embeddings
    empty = partial(torch.zeros, device="meta")
    noisy = empty((batch, unet.config.in_channels, side, side), dtype=dtype)
    extra = {}
    if "text_encoder_2" in networks:
        width = networks["text_encoder_2"].config.projection_dim
        extra = {"text_embeds": empty((batch, width), dtype=dtype), "time_ids": empty((batch, 6))}

    def loss() -> Tensor:
        return adapted(
            noisy.requires_grad_(config.gradient_checkpointing),  # as reentrant checkpointing wants it
            empty((batch,), dtype=torch.long),
            encoder_hidden_states=empty((batch, tokens, unet.config.cross_attention_dim), dtype=dtype),
            added_cond_kwargs=extra or None,
            return_dict=False,
        )[0].sum()

    adapted.train()
    if not config.gradient_checkpointing:
        return saved_bytes(loss(), adapted)
    return _kept_checkpointed(unet, adapted, loss)


def _kept_checkpointed(unet: Any, adapted: nn.Module, loss: Callable[[], Tensor]) -> int:
    """With gradient checkpointing: the inputs of all blocks, and what the largest block keeps when computed again."""
    largest = 0

    def compute(block: Any, *inputs: Any) -> Any:
        nonlocal largest
        again = [each.detach().requires_grad_() if isinstance(each, Tensor) else each for each in inputs]
        outputs = block(*again)
        output = outputs[0] if isinstance(outputs, tuple) else outputs
        largest = max(largest, saved_bytes(output.sum(), adapted))
        return checkpoint(block, *inputs, use_reentrant=True)

    unet.enable_gradient_checkpointing(compute)
    try:
        return saved_bytes(loss(), adapted) + largest
    finally:
        unet.disable_gradient_checkpointing()


def _kept_by_text(adapted: PeftModel, encoder: Any) -> int:
    """What a text encoder keeps: each forward pass encodes one prompt, whatever the number of pictures."""
    tokens = torch.zeros((1, encoder.config.max_position_embeddings), dtype=torch.long, device="meta")
    return saved_bytes(adapted.train()(input_ids=tokens, output_hidden_states=True).hidden_states[-2].sum(), adapted)
