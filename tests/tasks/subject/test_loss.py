"""The loss by its formulas in float64, and its gradient by differences of the loss."""

import pytest
import torch

from moslora.tasks.subject.attach import attach_adapters, trained
from moslora.tasks.subject.draws import chosen, draw
from moslora.tasks.subject.loss import add_noise, target, time_weights
from moslora.tasks.subject.objective import Objective
from moslora.tasks.subject.pictures import CLASS, SUBJECT, PictureSet, micro_batches
from moslora.tasks.subject.pipeline import LatentDistribution, load_pipeline
from tests.helpers import randomize_adapters
from tests.tasks.subject.conftest import settings
from tests.tasks.subject.pipelines import BETAS, write_sdxl


def alphas_by_definition():
    """alphas_cumprod of the scaled-linear schedule in float64."""
    ends = (BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5)
    return torch.cumprod(1 - torch.linspace(*ends, 1000, dtype=torch.float64) ** 2, 0)


def random_set(stream, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = [
        LatentDistribution(*(torch.randn(4, *size, generator=generator, dtype=torch.float64).abs() for _ in range(2)))
        for size in sizes
    ]
    return PictureSet(stream, [f"{i}" for i in range(len(sizes))], latents, [torch.arange(6.0)] * len(sizes), 1.0)


@pytest.mark.parametrize(("prediction_type", "gamma"), [("epsilon", 0), ("epsilon", 5), ("v_prediction", 5)])
def test_the_loss_and_its_gradient_are_those_of_the_formula(prediction_type, gamma, photographs, tmp_path):
    """Instance and class pictures, weighted; the truth is computed from the base weights plus s B M A."""
    pipeline = load_pipeline(write_sdxl(tmp_path / "base", prediction_type), torch.float32)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        part.double()
    adapted = attach_adapters(pipeline, settings(tmp_path, photographs))
    adapted["unet"].double()
    randomize_adapters(adapted["unet"], std=0.2)
    objective = Objective(pipeline, adapted, {SUBJECT: "a photo of sks dog", CLASS: "a photo of a dog"}, gamma)
    objective.alphas = alphas_by_definition()
    sets = [random_set(SUBJECT, [(8, 8), (8, 12)], 0), random_set(CLASS, [(8, 8)], 1)._replace(weight=0.7)]

    def whole(micro_batch_size):
        total = torch.zeros((), dtype=torch.float64)
        for pictures in sets:
            options = {"seed": 3, "batch_size": 2, "micro_batch_size": micro_batch_size, "timesteps": 1000}
            for batch in micro_batches(pictures, 5, **options):
                values = {
                    key: each.double() if key in ("latents", "noise") else each for key, each in batch._asdict().items()
                }
                total = total + pictures.weight * objective(**values).losses.sum() / 2
        return total

    def by_hand():
        total = 0.0
        for pictures in sets:
            prompt = objective.prompts[pictures.stream]
            hidden, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
            for place, index in enumerate(chosen(3, f"{pictures.stream}/order", 5, len(pictures.names), 2)):
                drawn = draw(
                    pictures.latents[index], 1000, seed=3, stream=pictures.stream, step=5, place=place, offset=0
                )
                x, n, a = drawn.latents.double(), drawn.noise.double(), objective.alphas[drawn.timestep]
                said = (
                    adapted["unet"]
                    .get_base_model()(
                        (a.sqrt() * x + (1 - a).sqrt() * n)[None],
                        drawn.timestep,
                        hidden,
                        added_cond_kwargs={"text_embeds": pooled, "time_ids": torch.arange(6.0)[None]},
                    )
                    .sample[0]
                )
                snr = a / (1 - a)
                if prediction_type == "epsilon":
                    wanted, weight = n, min(snr, gamma) / snr if gamma else 1.0
                else:
                    wanted, weight = a.sqrt() * n - (1 - a).sqrt() * x, min(snr, gamma) / (snr + 1)
                total = total + pictures.weight * weight * ((said - wanted) ** 2).mean() / 2
        return total

    parameters = trained(adapted)
    truth = by_hand()
    expected = torch.autograd.grad(truth, list(parameters.values()))
    for micro_batch_size in (1, 2):
        loss = whole(micro_batch_size)
        assert abs(loss - truth) < 1e-12 * abs(truth)
        found = torch.autograd.grad(loss, list(parameters.values()))
        for name, one, other in zip(parameters, found, expected, strict=True):
            assert (one - other).norm() <= 1e-10 * other.norm() + 1e-16, name
    _assert_gradient_by_differences(parameters, expected, by_hand)


def _assert_gradient_by_differences(parameters, gradients, loss):
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in gradients]
    slope, step, values = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)), 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters.values(), directions, strict=True):
                parameter += sign * step * direction
        values.append(loss().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope.item(), rel=1e-5)


def test_noisy_latents_and_v_turn_back_into_latents_and_noise():
    """x = sqrt(a) noisy - sqrt(1 - a) v, from the definition of v."""
    generator = torch.Generator().manual_seed(0)
    x, n = (torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    alphas = torch.tensor([0.999, 0.5, 0.005], dtype=torch.float64)
    a = alphas.view(-1, 1, 1, 1)
    again = a.sqrt() * add_noise(x, n, alphas) - (1 - a).sqrt() * target(x, n, alphas, "v_prediction")
    torch.testing.assert_close(again, x)


def test_min_snr_weights_are_finite_at_zero_terminal_snr():
    alphas = torch.tensor([0.0, 0.5, 0.9999])
    torch.testing.assert_close(time_weights(alphas, "epsilon", 5.0)[:2], torch.ones(2))
    torch.testing.assert_close(time_weights(alphas, "v_prediction", 5.0)[:2], torch.tensor([0.0, 0.5]))
    assert time_weights(alphas, "epsilon", 5.0)[2] == pytest.approx(5.0 * 1e-4 / 0.9999, rel=1e-3)


def test_every_picture_is_seen_once_before_any_is_seen_again():
    seen = [index for step in range(10) for index in chosen(0, "order", step, 5, 4)]
    assert all(sorted(seen[start : start + 5]) == list(range(5)) for start in range(0, 40, 5))
    assert seen != [index for step in range(10) for index in chosen(1, "order", step, 5, 4)]


def test_chance_depends_on_seed_step_and_place_alone():
    distribution = LatentDistribution(torch.zeros(4, 8, 8), torch.ones(4, 8, 8))
    options = {"seed": 0, "stream": SUBJECT, "step": 7, "place": 1, "offset": 0.0}
    torch.manual_seed(0)
    first = draw(distribution, 1000, **options)
    torch.manual_seed(1)
    again = draw(distribution, 1000, **options)
    assert torch.equal(first.noise, again.noise)
    assert first.timestep == again.timestep
    for changed in ({"seed": 1}, {"step": 8}, {"place": 2}, {"stream": CLASS}):
        other = draw(distribution, 1000, **{**options, **changed})
        assert (other.noise - first.noise).abs().max() > 1


def test_offset_noise_is_constant_in_each_channel():
    distribution = LatentDistribution(torch.zeros(4, 8, 8), torch.ones(4, 8, 8))
    options = {"seed": 0, "stream": SUBJECT, "step": 0, "place": 0}
    plain, offset = (draw(distribution, 1000, offset=size, **options) for size in (0.0, 0.1))
    shift = offset.noise - plain.noise
    torch.testing.assert_close(shift, shift.mean(dim=(1, 2), keepdim=True).expand_as(shift))
    assert shift.std() > 0.01
    assert torch.equal(plain.latents, offset.latents)
