"""A finished run, a folder of benchmarks, and somebody who answers."""

import pytest

from moslora import runs
from moslora.tasks.vision_language.evaluation.config import VisionEvalConfig
from moslora.tasks.vision_language.evaluation.mme import COGNITION, PERCEPTION

from .files import choice_row, image_text, write_tsv


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it."""
    folder = tmp_path / "run"
    record = {"task": "vision-language", "config": {"method": "moslora", "model": "llava"}, "status": "done"}
    runs.write_json(folder / "run.json", {**record, "parameters": {"trainable": 5}, "seconds": 2.0, "final_loss": 0.5})
    runs.write_text(folder / "adapter" / "adapter_config.json", "{}")
    return folder


@pytest.fixture
def data(tmp_path):
    """One small file of each kind of benchmark."""
    folder = tmp_path / "data"
    choices = [choice_row(number, "ABC"[number % 3], **{"l2-category": "logic_reasoning"}) for number in range(1, 5)]
    write_tsv(folder / "MMBench_DEV_EN.tsv", choices)
    write_tsv(folder / "MMBench_TEST_EN.tsv", [{k: v for k, v in row.items() if k != "answer"} for row in choices])
    write_tsv(folder / "AI2D_TEST.tsv", choices)
    image = image_text("blue")
    write_tsv(
        folder / "MME.tsv",
        [
            {"index": 2 * place + number, "category": name, "question": f"{name}: {word}?", "answer": word,
             "image": image if number == 0 else 2 * place, "image_path": f"{name}.jpg"}
            for place, name in enumerate((*PERCEPTION, *COGNITION)) for number, word in enumerate(("Yes", "No"))
        ],
    )  # fmt: skip
    write_tsv(
        folder / "TextVQA_VAL.tsv",
        [{"index": n, "question": "What does it say?", "answer": str(["stop"] * 10), "image": image} for n in range(3)],
    )
    write_tsv(
        folder / "MMVet.tsv",
        [
            {"index": n, "question": "What?", "answer": "dog<AND>cat", "category": "rec", "image": image}
            for n in range(3)
        ],
    )
    return folder


@pytest.fixture
def config(run, data):
    """Settings for some of the benchmarks."""

    def make(*benchmarks, **more):
        return VisionEvalConfig(run=run, data=data, benchmarks=benchmarks, batch_size=3, **more)

    return make
