"""The loss of a run as a module: adapted networks in, one number per picture out."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .attach import Adapted
from .loss import add_noise, losses, target, time_weights
from .pipeline import UNET, Embeddings, encode_prompt, training_scheduler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Objective(nn.Module):
    """Denoising loss of the pictures of a micro-batch.

    Texts are encoded once, unless the text encoders are trained.

    Args:
        pipeline: with the networks on the device that computes.
        adapted: the trained ones among them.
        prompts: stream of pictures -> what they show.
        gamma: of the Min-SNR weighting; 0 for none.
    """

    def __init__(
        self, pipeline: "DiffusionPipeline", adapted: Adapted, prompts: dict[str, str], gamma: float = 0.0
    ) -> None:
        super().__init__()
        self.adapted = nn.ModuleDict(adapted)
        self.pipeline = pipeline
        self.prompts = prompts
        self.gamma = gamma
        scheduler = training_scheduler(pipeline)
        self.prediction_type: str = scheduler.config.prediction_type
        self.alphas: Tensor = scheduler.alphas_cumprod  # (time steps,), float32
        self.texts: dict[str, Embeddings] = {}
        if set(adapted) == {UNET}:
            with torch.no_grad():
                self.texts = {stream: self._encode(prompt) for stream, prompt in prompts.items()}

    @property
    def timesteps(self) -> int:
        """Of the noise schedule."""
        return len(self.alphas)

    def forward(
        self, stream: str, latents: Tensor, noise: Tensor, timesteps: Tensor, time_ids: Tensor, **_: Any
    ) -> SimpleNamespace:
        """`losses` (batch,) of a micro-batch, and `loss`, their mean.

        Args:
            stream: of the pictures, which chooses the text.
            latents: (batch, channels, height, width).
            noise: the same.
            timesteps: (batch,).
            time_ids: (batch, 6); SDXL alone looks at them.
        """
        device = self.pipeline.unet.device
        alphas = self.alphas[timesteps.cpu()].to(device, latents.dtype)
        latents, noise = latents.to(device), noise.to(device)
        noisy = add_noise(latents, noise, alphas)
        hidden, pooled = self.texts.get(stream) or self._encode(self.prompts[stream])
        batch = len(latents)
        extra = {}
        if pooled is not None:
            extra = {"text_embeds": pooled.expand(batch, -1), "time_ids": time_ids.to(device)}
        predicted = self.adapted[UNET](
            noisy.to(self.pipeline.unet.dtype),
            timesteps.to(device),
            encoder_hidden_states=hidden.expand(batch, -1, -1),
            added_cond_kwargs=extra or None,
            return_dict=False,
        )[0].to(noise.dtype)
        expected = target(latents, noise, alphas, self.prediction_type)
        each = losses(predicted, expected, time_weights(alphas, self.prediction_type, self.gamma))
        return SimpleNamespace(losses=each, loss=each.mean())

    def _encode(self, prompt: str) -> Embeddings:
        return encode_prompt(self.pipeline, prompt, self.pipeline.unet.device)
