"""SHAPES, questions about grids of coloured shapes, in the forms that `moslora` trains and evaluates.

    python examples/shapes.py DATA OUT

DATA holds the arrays of github.com/ronghanghu/n2nmn (exp_shapes/shapes_dataset). Writes OUT/train.json with
OUT/images/*.png, the 640 questions of its small training set, and OUT/shapes_val.tsv and OUT/shapes_test.tsv, 1024
questions each; then prints the commands that adapt the embedded model with LoRA and MoSLoRA. Needs seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from moslora.embedded.vision.questions import Question, write_llava, write_tsv

OPTIONS = ("true", "false")
METHODS = ("lora", "moslora")
RELATIONS = ("above", "below", "left", "right")
CATEGORIES = ("no relation", "one relation", "two relations")


def read(data: Path, part: str) -> list[Question]:
    """The questions of `train.small`, `val` or `test`."""
    arrays = np.load(data / f"{part}.input.npy")[..., ::-1]  # (questions, 30, 30, 3), stored blue first
    texts, answers = (
        (data / f"{part}.{end}").read_text(encoding="utf-8").splitlines() for end in ("query_str.txt", "output")
    )
    return [
        Question(
            picture=Image.fromarray(np.ascontiguousarray(array)),
            text=text,
            options=OPTIONS,
            right=OPTIONS.index(answer),
            category=CATEGORIES[sum(text.split().count(word) for word in RELATIONS)],
            ability="relation_reasoning",
        )
        for array, text, answer in zip(arrays, texts, answers, strict=True)
    ]


def main(data: Path, out: Path) -> None:
    """Convert all parts and say what to do with them."""
    write_llava(out, read(data, "train.small"))
    for part in ("val", "test"):
        questions = read(data, part)
        write_tsv(out / f"shapes_{part}.tsv", questions)
        commonest = max(sum(question.answer == option for question in questions) for option in OPTIONS)
        print(f"{part}: {len(questions)} questions; the commonest answer is right in {commonest / len(questions):.1%}")
    for method in METHODS:
        run = out / method
        print(f"\nmoslora train vision-language --recipe vision/embedded --set epochs=6 --method {method} \\")
        print(f"    --data {out / 'train.json'} --images {out / 'images'} --out {run}")
        print(f"moslora eval vision-language --run {run} --data {out} --benchmarks shapes_val shapes_test")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="SHAPES in the forms that moslora trains and evaluates.")
    parser.add_argument("data", type=Path, help="exp_shapes/shapes_dataset of github.com/ronghanghu/n2nmn")
    parser.add_argument("out", type=Path, help="folder to write, made if missing")
    arguments = parser.parse_args()
    main(arguments.data, arguments.out)
