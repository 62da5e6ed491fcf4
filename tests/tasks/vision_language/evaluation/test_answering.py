"""A model as somebody who answers: compared with transformers' own way, and the command line from run to scores."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from moslora import runs
from moslora.cli import main
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.evaluation.answering import ModelAnswerer, load_answerer
from moslora.tasks.vision_language.evaluation.asking import Question
from moslora.tasks.vision_language.evaluation.config import VisionEvalConfig
from moslora.tasks.vision_language.images import to_square
from moslora.tasks.vision_language.model import load_base, load_processor
from moslora.tasks.vision_language.train import train

from .files import choice_row, image_text, write_tsv


def pictures():
    """Three pictures of different shapes."""
    sizes, colours = ((40, 30), (30, 60), (32, 32)), ("red", "blue", "green")
    return [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]


QUESTIONS = ("What is it?", "Is there a red shape above a circle, or a teapot?", "Which?\nA. one\nB. two")


@pytest.fixture(scope="module")
def answerer(tiny_llava):
    return ModelAnswerer(
        load_base(str(tiny_llava), torch.float32).eval(), load_processor(str(tiny_llava)), pad_to_square=True
    )


@pytest.fixture(scope="module")
def trained(tiny_llava, shapes, tmp_path_factory):
    """A run of two steps."""
    out = tmp_path_factory.mktemp("runs") / "moslora"
    config = VisionLanguageTrainConfig(
        model=str(tiny_llava), data=(str(shapes / "train.json"),), images=str(shapes / "images"), dtype="float32",
        rank=4, vision_rank=4, max_steps=2, batch_size=8, micro_batch_size=4, learning_rate=1e-2, warmup_steps=0,
        save_steps=2, logging_steps=1,
    )  # fmt: skip
    train(config, out)
    return out


def test_answers_are_those_of_transformers_one_at_a_time(answerer, tiny_llava):
    model, processor = answerer.model, answerer.processor
    expected = []
    for text, picture in zip(QUESTIONS, pictures(), strict=True):
        square = to_square(picture, [int(255 * mean) for mean in processor.image_processor.image_mean])
        message = [{"role": "user", "content": f"<image>\n{text}"}]
        written = processor.apply_chat_template(message, add_generation_prompt=True)
        inputs = processor(text=written, images=square, add_special_tokens=False, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        expected.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    questions = [Question(text, picture) for text, picture in zip(QUESTIONS, pictures(), strict=True)]
    assert answerer.answer(questions, 12) == expected
    assert len(set(expected)) > 1


def test_the_image_is_shown_once_whatever_the_question_says(answerer):
    picture = pictures()[0]
    plain, marked = (answerer.answer([Question(text, picture)], 8) for text in ("What is it?", "<image>What is it?"))
    assert plain == marked


def test_the_image_counts(answerer):
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (32, 32, 3), generator=draw, dtype=torch.uint8).numpy()
    questions = [Question(QUESTIONS[1], picture) for picture in (Image.fromarray(noise), pictures()[0])]
    answers = answerer.answer(questions, 40)
    assert answers[0] != answers[1]


@pytest.mark.filterwarnings("ignore::moslora.errors.MoSLoRAWarning")
def test_the_command_goes_from_a_run_to_scores_and_a_report(trained, tmp_path, capsys):
    data = tmp_path / "data"
    write_tsv(data / "MMBench_DEV_EN.tsv", [choice_row(number, "AB"[number % 2]) for number in range(1, 4)])
    words = [{"index": n, "question": "What?", "answer": "yes", "image": image_text("blue")} for n in range(2)]
    write_tsv(data / "words.tsv", words)
    common = ["--run", str(trained), "--data", str(data), "--max-new-tokens", "4", "--batch-size", "4"]
    assert main(["eval", "vision-language", *common, "--benchmarks", "MMBench_DEV_EN"]) == 0
    assert main(["eval", "vision-language", *common, "--benchmarks", "words", "--kind", "vqa"]) == 0
    assert main(["eval", "vision-language", *common, "--benchmarks", "MMBench_DEV_EN", "--base-only"]) == 0
    output = capsys.readouterr().out
    assert "MMBench_DEV_EN" in output
    assert "words" in output
    scores = runs.read_json(trained / "eval" / "scores.json")
    assert {name: each["rows"] for name, each in scores["benchmarks"].items()} == {"MMBench_DEV_EN": 9, "words": 2}
    assert set(scores["settings"]["trained"]) == {"adapter", "projector"}
    read = {
        name: [row["output"] for row in runs.read_rows(trained / name / "predictions" / "MMBench_DEV_EN.jsonl")]
        for name in ("eval", "eval-base")
    }
    assert read["eval"] != read["eval-base"]  # the adapter is there, and away
    assert main(["report", str(trained), "--out", str(tmp_path / "report")]) == 0
    assert "Nine benchmarks" in (tmp_path / "report" / "report.md").read_text()


def test_the_loaded_model_is_the_trained_one(trained, tmp_path):
    config = {"run": trained, "data": tmp_path, "benchmarks": ("x",)}
    record = runs.finished_record(trained)
    base, adapted = (load_answerer(VisionEvalConfig(**config, base_only=only), record) for only in (True, False))
    mixers = {
        part: sum(name.endswith(".mixer") for name, _ in part.model.named_parameters()) for part in (base, adapted)
    }
    # 2 language layers of 7 adapted linear layers; 3 vision layers of 6, of which the last is never read.
    assert mixers == {base: 0, adapted: 2 * 7 + 2 * 6}
    assert adapted.pad_to_square is True
    assert not adapted.model.training


def test_help_needs_no_torch():
    code = (
        "import sys; from moslora.cli import main\n"
        "try: main(['eval', 'vision-language', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'PIL', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "--judge-url" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []
