"""lm-evaluation-harness on a run's plain LoRA, in stock PEFT, agrees with our ranking."""

import json

import pytest
import torch

from moslora import runs
from moslora.tasks.commonsense.config import CommonsenseEvalConfig
from moslora.tasks.commonsense.evaluate import evaluate
from tests.helpers import ROOT

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install lm-eval")


def test_lm_eval_ranks_the_options_of_every_question_as_we_do(trained, tiny_model, questions, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("run.json", "adapter"):
        (copy / name).symlink_to(trained / name)
    scores = evaluate(CommonsenseEvalConfig(run=copy, data=questions, benchmarks=("toy",), decoding="ranking"))
    ours = runs.read_rows(copy / "eval" / "predictions" / "toy.jsonl")

    task = (ROOT / "examples" / "lm_eval" / "arc_easy.yaml").read_text()
    task = task.replace("dataset/ARC-Easy/test.json", str(questions / "toy" / "test.json"))
    (tmp_path / "task.yaml").write_text(task)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={tiny_model},peft={trained / 'lora'},dtype=float32",
        tasks=["llm_adapters_arc_easy"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )
    samples = sorted(theirs["samples"]["llm_adapters_arc_easy"], key=lambda sample: sample["doc_id"])
    items = json.loads((questions / "toy" / "test.json").read_text())
    assert len(samples) == len(ours) == len(items)
    for sample, row, item in zip(samples, ours, items, strict=True):
        assert sample["doc"]["instruction"] == item["instruction"]
        found = torch.tensor([float(response[0]) for response in sample["filtered_resps"]])
        expected = torch.tensor(list(row["scores"].values()))
        # Ours leave out what all options share.
        torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-4, atol=1e-4)
    accuracy = theirs["results"]["llm_adapters_arc_easy"]["acc,none"]
    assert accuracy == pytest.approx(scores["benchmarks"]["toy"]["accuracy"])
