"""The order in which rows are shown: one modality and like lengths in a step, every row in an epoch."""

import numpy
import pytest
from torch.utils.data import BatchSampler

from moslora.tasks.vision_language.batches import ModalityBatches

DRAW = numpy.random.default_rng(0)
LENGTHS = DRAW.integers(10, 500, 1003)
HAS_IMAGE = DRAW.random(1003) < 0.6


def _sampler(seed=1, epoch=0, batch_size=16, lengths=LENGTHS, has_image=HAS_IMAGE):
    sampler = ModalityBatches(lengths, has_image, batch_size, seed)
    sampler.set_epoch(epoch)
    return sampler


def _steps(sampler):
    return list(BatchSampler(sampler, sampler.batch_size, drop_last=False))


@pytest.mark.parametrize("batch_size", [1, 4, 16, 64])
def test_no_step_mixes_modalities_and_every_row_is_seen(batch_size):
    sampler = _sampler(batch_size=batch_size)
    steps = _steps(sampler)
    assert all(len({bool(HAS_IMAGE[row]) for row in step}) == 1 for step in steps)
    assert all(len(step) == batch_size for step in steps)
    seen = [row for step in steps for row in step]
    assert len(seen) == len(sampler)
    assert set(seen) == set(range(1003))
    assert len(seen) - 1003 < 2 * batch_size  # rows drawn again, to fill the last step of each modality


def test_rows_of_a_step_are_of_like_length_and_steps_are_not_in_order_of_length():
    steps = _steps(_sampler())
    within = numpy.mean([numpy.ptp(LENGTHS[step]) for step in steps])
    assert within < 0.2 * numpy.ptp(LENGTHS)
    means = [LENGTHS[step].mean() for step in steps]
    assert abs(numpy.corrcoef(means, range(len(means)))[0, 1]) < 0.4


def test_seed_and_epoch_alone_decide_the_order():
    assert list(_sampler()) == list(_sampler())
    assert list(_sampler()) != list(_sampler(epoch=1))
    assert list(_sampler()) != list(_sampler(seed=2))
    sampler = _sampler()
    assert list(sampler) == list(sampler)


@pytest.mark.parametrize("value", [True, False])
def test_rows_of_one_modality_alone(value):
    sampler = _sampler(has_image=[value] * 20, lengths=[3] * 20, batch_size=8)
    assert len(list(sampler)) == len(sampler) == 24
