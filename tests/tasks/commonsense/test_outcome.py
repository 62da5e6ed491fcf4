"""What an evaluation leaves beside the predictions: scores, and a list of outputs without an answer word."""

import dataclasses

import peft
import pytest
import torch

from moslora import runs
from moslora.cli import main
from moslora.errors import UnsupportedError
from moslora.methods import METHODS, peft_config
from moslora.tasks.commonsense.evaluate import evaluate
from moslora.tasks.commonsense.outcome import unparsed_report
from tests.helpers import tiny_llama


def test_the_report_shows_counts_and_the_first_outputs_without_an_answer():
    rows = [{"index": number, "output": f"no {number}\nidea", "prediction": "", "label": "b"} for number in range(7)]
    rows.insert(1, {"index": 9, "output": "a", "prediction": "a", "label": "b"})
    text = unparsed_report({"some": rows, "none": rows[1:2]})
    assert "| some | 7 | 8 |\n| none | 0 | 1 |" in text
    assert "## some: the first 5 of 7" in text
    assert "Question 4, expected `b`:\n\n    no 4\n    idea\n" in text
    assert "no 5" not in text
    assert "## none" not in text


def test_scores_say_which_file_was_asked_and_what_guessing_reaches(config, questions):
    scores = evaluate(config)
    toy = scores["benchmarks"]["toy"]
    assert toy["sha256"] == runs.file_sha256(questions / "toy" / "test.json")
    assert (toy["chance"], toy["version"], toy["published"], toy["tied"]) == (0.25, None, None, 0)
    assert scores["settings"]["decoding"] == "greedy"
    assert scores["settings"]["merged"] is True
    empty = sum(not row["prediction"] for row in runs.read_rows(config.run / "eval" / "predictions" / "toy.jsonl"))
    assert f"| toy | {empty} | 12 |" in (config.run / "eval" / "unparsed.md").read_text()


def test_the_command_ranks_and_prints_chance(config, questions, capsys):
    words = ["eval", "commonsense", "--run", str(config.run), "--data", str(questions), "--benchmarks", "toy"]
    assert main([*words, "--decoding", "ranking", "--into", "ranked"]) == 0
    rows = runs.read_rows(config.run / "ranked" / "predictions" / "toy.jsonl")
    assert all(row["prediction"] == max(row["scores"], key=row["scores"].get) for row in rows)
    assert not (config.run / "ranked" / "unparsed.md").exists()
    printed = capsys.readouterr().out
    assert "chance" in printed
    assert "25.0%" in printed


def test_merging_changes_no_answer(config):
    evaluate(config)
    evaluate(dataclasses.replace(config, merge="no", into="beside"))
    merged, beside = (runs.read_rows(config.run / name / "predictions" / "toy.jsonl") for name in ("eval", "beside"))
    assert merged == beside
    assert runs.read_json(config.run / "beside" / "scores.json")["settings"]["merged"] is False


def test_an_adapter_that_cannot_be_merged_stays_beside_the_base_unless_merging_was_asked_for(config, monkeypatch):
    monkeypatch.delattr(peft.tuners.tuners_utils.BaseTuner, "merge_and_unload")
    assert evaluate(config)["benchmarks"]["toy"]["n"] == 12
    with pytest.raises(UnsupportedError, match="Choose --merge auto or no"):
        evaluate(dataclasses.replace(config, merge="yes", into="merged"))


# Full fine-tuning has nothing to merge, and mixers that wait for the first gradients have no values yet.
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("full", "moslora-gradient")])
def test_a_merged_model_computes_what_the_adapted_one_does(method):
    base = tiny_llama()
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        settings = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "up_proj"]}
        adapted = peft.get_peft_model(base, peft_config(method, **settings)).eval()
        draw = torch.Generator().manual_seed(1)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
        expected = adapted(input_ids=ids).logits
        found = adapted.merge_and_unload()(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-4 * (expected - plain).abs().max()
