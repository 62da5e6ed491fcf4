"""Evaluation of a tiny run: batches, resuming, scores."""

import dataclasses
import json

import pytest
import torch
import transformers

from moslora import runs
from moslora.errors import DataError, RunError
from moslora.tasks.commonsense import answering
from moslora.tasks.commonsense import evaluate as evaluation
from moslora.tasks.commonsense.evaluate import evaluate
from moslora.tasks.commonsense.prompt import evaluation_prompt


def test_every_question_is_answered_once_and_in_order(config, questions):
    scores = evaluate(config)
    items = json.loads((questions / "toy" / "test.json").read_text())
    rows = runs.read_rows(config.run / "eval" / "predictions" / "toy.jsonl")
    assert [row["index"] for row in rows] == list(range(len(items)))
    assert [row["label"] for row in rows] == [item["answer"] for item in items]
    assert scores["benchmarks"]["toy"]["n"] == len(items)
    assert scores["benchmarks"]["toy"]["correct"] == sum(row["prediction"] == row["label"] for row in rows)
    assert scores == runs.read_json(config.run / "eval" / "scores.json")


@pytest.mark.parametrize(("decoding", "beams"), [("greedy", 1), ("authors", 4)])
def test_left_padded_batches_give_what_each_question_alone_gives(config, tiny_model, questions, decoding, beams):
    import peft

    evaluate(dataclasses.replace(config, decoding=decoding, batch_size=12, early_stop=False))
    whole = runs.read_rows(config.run / "eval" / "predictions" / "toy.jsonl")
    evaluate(dataclasses.replace(config, decoding=decoding, batch_size=12, into="early"))
    early = runs.read_rows(config.run / "early" / "predictions" / "toy.jsonl")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = peft.PeftModel.from_pretrained(base, config.run / "adapter").eval()
    items = json.loads((questions / "toy" / "test.json").read_text())
    for item, row, cut in zip(items, whole, early, strict=True):
        assert _answer_alone(adapted, tokenizer, item, beams) == row["output"]
        assert cut["prediction"] == row["prediction"]
        assert row["output"].startswith(cut["output"])


def test_an_interrupted_evaluation_goes_on_where_it_stopped(config, monkeypatch):
    expected = evaluate(config)
    path = config.run / "eval" / "predictions" / "toy.jsonl"
    rows = runs.read_rows(path)
    runs.rewrite_rows(path, rows[3:8])
    with path.open("a") as file:
        file.write('{"index": 9, "outp')  # what a crash leaves
    asked = []
    search = answering.search

    def remember(model, tokenizer, prompts, *rest, **settings):
        asked.append(len(prompts))
        return search(model, tokenizer, prompts, *rest, **settings)

    monkeypatch.setattr(answering, "search", remember)
    assert evaluate(config) == expected
    assert runs.read_rows(path) == rows
    assert asked == [5, 2]


def test_a_finished_evaluation_is_only_read(config, monkeypatch):
    expected = evaluate(config)
    monkeypatch.setattr(evaluation, "_answer", None)
    assert evaluate(config) == expected


def test_other_settings_or_data_are_never_mixed_in(config, questions, tmp_path):
    evaluate(dataclasses.replace(config, limit=4))
    with pytest.raises(RunError, match=r"settings.decoding: 'greedy' in the folder, 'ranking' now"):
        evaluate(dataclasses.replace(config, limit=4, decoding="ranking"))
    with pytest.raises(RunError, match=r"data.toy.questions: 4 in the folder, 12 now"):
        evaluate(config)


def test_another_benchmark_joins_the_scores(config, questions, tmp_path):
    data = tmp_path / "data"
    for name in ("toy", "toy2"):
        (data / name).mkdir(parents=True)
        (data / name / "test.json").write_bytes((questions / "toy" / "test.json").read_bytes())
    first = evaluate(dataclasses.replace(config, data=data, limit=4))
    both = evaluate(dataclasses.replace(config, data=data, limit=4, benchmarks=("toy", "toy2")))
    assert both["benchmarks"] == {"toy": first["benchmarks"]["toy"], "toy2": first["benchmarks"]["toy"]}


def test_the_base_is_measured_without_the_adapter_in_a_folder_of_its_own(config, tiny_model, questions):
    evaluate(config)
    scores = evaluate(dataclasses.replace(config, base_only=True))
    assert scores == runs.read_json(config.run / "eval-base" / "scores.json")
    rows = {
        folder: [row["output"] for row in runs.read_rows(config.run / folder / "predictions" / "toy.jsonl")]
        for folder in ("eval", "eval-base")
    }
    assert rows["eval"] != rows["eval-base"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for item, output in zip(json.loads((questions / "toy" / "test.json").read_text()), rows["eval-base"], strict=True):
        assert _answer_alone(base, tokenizer, item, num_beams=1).startswith(output)


def _answer_alone(model, tokenizer, item, num_beams: int) -> str:
    ids = tokenizer(evaluation_prompt(item["instruction"]), return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**ids, num_beams=num_beams, max_new_tokens=8, do_sample=False, pad_token_id=1)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_an_unfinished_run_and_an_unknown_benchmark_are_refused(config, trained):
    with pytest.raises(DataError, match=r"No benchmark 'arc'.*Found in .*: toy"):
        evaluate(dataclasses.replace(config, benchmarks=("arc",)))
    (config.run / "run.json").unlink()
    runs.write_json(config.run / "run.json", {"status": "running"})
    with pytest.raises(RunError, match="not finished"):
        evaluate(config)
