"""The denoising loss: noisy latents, what the network shall say of them, and how much each time step counts.

With a = alphas_cumprod[t], latents x and noise n:

    noisy = sqrt(a) x + sqrt(1 - a) n          target: n (epsilon), or v = sqrt(a) n - sqrt(1 - a) x (v_prediction)
    snr = a / (1 - a)                          weight: min(snr, gamma) / snr, or min(snr, gamma) / (snr + 1) for v

Sources: DDPM, arXiv:2006.11239; v, arXiv:2202.00512; Min-SNR, arXiv:2303.09556.
"""

from torch import Tensor


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Noisy latents (batch, channels, height, width) at alphas (batch,) = alphas_cumprod[t]."""
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def target(latents: Tensor, noise: Tensor, alphas: Tensor, prediction_type: str) -> Tensor:
    """What the network shall predict, in the shape of the latents.

    Args:
        latents: (batch, channels, height, width).
        noise: the same.
        alphas: (batch,), alphas_cumprod[t].
        prediction_type: "epsilon" or "v_prediction".
    """
    if prediction_type == "epsilon":
        return noise
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def time_weights(alphas: Tensor, prediction_type: str, gamma: float) -> Tensor:
    """Weight (batch,) of each picture's time step; ones where gamma is 0."""
    if not gamma:
        return alphas.new_ones(alphas.shape)
    snr = alphas / (1 - alphas)
    # min(snr, gamma) / snr is written so that snr = 0, the last step of some v-prediction models, divides by nothing.
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1)


def losses(predicted: Tensor, expected: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean square error of each picture (batch,), in the dtype of the arguments."""
    return weights * (predicted - expected).square().mean(dim=(1, 2, 3))
