"""Batches of rows of like length, all with images or all without."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from torch.utils.data import Sampler

from ..guarded import GuardedTrainer

BATCHES = 50  # within which rows are sorted by length: wide enough to save padding, narrow enough to stay random


class ModalityBatches(Sampler[int]):
    """Numbers of rows, so that each `batch_size` in a row are one optimizer step of one modality.

    An epoch sees every row. The last batch of a modality is filled up with rows drawn again, so a few count twice.
    The order depends on seed and epoch alone: a resumed run goes on in it.

    Args:
        lengths: tokens of each row.
        has_image: whether it has an image.
        batch_size: rows per optimizer step, over all processes.
        seed: of the run.
    """

    def __init__(self, lengths: Sequence[int], has_image: Sequence[bool], batch_size: int, seed: int) -> None:
        self.lengths, self.has_image = numpy.asarray(lengths), numpy.asarray(has_image, dtype=bool)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch; called by accelerate."""
        self.epoch = epoch

    def __len__(self) -> int:
        counts = (int(self.has_image.sum()), int((~self.has_image).sum()))
        return sum(-(-count // self.batch_size) * self.batch_size for count in counts)

    def __iter__(self) -> Iterator[int]:
        draw = numpy.random.default_rng([self.seed, self.epoch])
        batches: list[numpy.ndarray] = []
        for modality in (self.has_image, ~self.has_image):
            batches += self._batches(numpy.flatnonzero(modality), draw)
        for number in draw.permutation(len(batches)):
            yield from batches[number].tolist()

    def _batches(self, rows: numpy.ndarray, draw: numpy.random.Generator) -> list[numpy.ndarray]:
        """Shuffled, sorted within every `BATCHES`, and cut into batches."""
        if not len(rows):
            return []
        missing = -len(rows) % self.batch_size
        order = numpy.concatenate([draw.permutation(rows), draw.choice(rows, missing)])
        wide = BATCHES * self.batch_size
        parts = [order[start : start + wide] for start in range(0, len(order), wide)]
        order = numpy.concatenate([part[numpy.argsort(-self.lengths[part], kind="stable")] for part in parts])
        return numpy.split(order, len(order) // self.batch_size)


class ModalityTrainer(GuardedTrainer):
    """transformers' Trainer with `ModalityBatches`."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows = self.train_dataset if train_dataset is None else train_dataset
        arguments = self.args
        batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return ModalityBatches(rows.lengths, rows.has_image, batch_size, arguments.data_seed)
