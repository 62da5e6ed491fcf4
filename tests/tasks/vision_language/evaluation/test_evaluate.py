"""The whole way from files to scores, with somebody who answers without a model."""

import json
import re
import zipfile
from xml.etree import ElementTree

import pytest

from moslora import runs
from moslora.errors import ConfigError, DataError, MoSLoRAWarning, RunError
from moslora.tasks.vision_language.evaluation.benchmarks import BENCHMARKS, COLUMNS
from moslora.tasks.vision_language.evaluation.evaluate import evaluate
from moslora.tasks.vision_language.evaluation.scoring import predictions_file, unparsed_report
from moslora.tasks.vision_language.evaluation.submission import workbook
from tests.helpers import data_folder

from .files import choice_row, image_text, write_tsv
from .judge_server import judge_server

pytestmark = pytest.mark.filterwarnings("ignore::moslora.errors.MoSLoRAWarning")


class Somebody:
    """Answers by a rule; breaks off after some batches."""

    def __init__(self, rule, batches=10**9):
        self.rule, self.batches, self.asked = rule, batches, []

    def __call__(self, config, record):
        return self

    def answer(self, questions, max_new_tokens):
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches -= 1
        self.asked += [(question.text, question.image.size, max_new_tokens) for question in questions]
        return [self.rule(question.text) for question in questions]


def never(config, record):
    """Nothing is left to answer, so no model may be loaded."""
    raise AssertionError("a model was loaded")


def knows_numbers(text):
    """Right on the first rotation's letter for questions 1 and 2, whatever the rotation."""
    number = int(re.search(r"number (\d)", text)[1])
    truth = {0: "one", 1: "two", 2: "three"}[number % 3]
    return re.search(rf"([A-C])\. {truth}", text)[1] if number < 3 else "A"


def test_questions_reach_the_model_as_llava_was_asked(config):
    somebody = Somebody(knows_numbers)
    evaluate(config("AI2D_TEST"), somebody)
    expected = (
        "Which is number 1?\nA. one\nB. two\nC. three\nAnswer with the option's letter from the given choices directly."
    )
    assert (expected, (24, 16), 16) in somebody.asked
    assert len(somebody.asked) == 4


def test_scores_say_what_was_found_and_on_which_file(config, run):
    scores = evaluate(config("MMBench_DEV_EN", "AI2D_TEST"), Somebody(knows_numbers))
    circular, plain = scores["benchmarks"]["MMBench_DEV_EN"], scores["benchmarks"]["AI2D_TEST"]
    assert (circular["correct"], circular["n"], circular["rows"], circular["questions"]) == (2, 4, 12, 4)
    assert circular["parts"]["abilities"]["LR"]["score"] == 0.5
    assert circular["rotations"] == "made"
    assert circular["chance"] == pytest.approx(1 / 27)
    assert (plain["score"], plain["chance"]) == (0.75, pytest.approx(1 / 3))  # the answer to question 3 is A
    assert plain["published"] is False
    assert {"md5", "sha256", "version", "max_new_tokens"} <= plain.keys()
    assert scores["columns"] == {"MMBench EN": "MMBench_DEV_EN", "AI2D": "AI2D_TEST"}
    assert scores["mean"] is None
    assert runs.read_json(run / "eval" / "scores.json") == json.loads(json.dumps(scores))


def test_an_interrupted_evaluation_goes_on_and_ends_as_one_that_was_not(config, run):
    whole = evaluate(config("MMBench_DEV_EN", "TextVQA_VAL", into="whole"), Somebody(knows_or_reads))
    for batches in (1, 2, 1):
        with pytest.raises(KeyboardInterrupt):
            evaluate(config("MMBench_DEV_EN", "TextVQA_VAL"), Somebody(knows_or_reads, batches))
    path = predictions_file(run / "eval", "MMBench_DEV_EN")
    path.write_text(path.read_text()[:-7])  # as a crash in the middle of a line leaves it
    somebody = Somebody(knows_or_reads)
    assert evaluate(config("MMBench_DEV_EN", "TextVQA_VAL"), somebody) == whole
    assert 1 < len(somebody.asked) < 15
    for name in ("MMBench_DEV_EN", "TextVQA_VAL"):
        assert predictions_file(run / "eval", name).read_text() == predictions_file(run / "whole", name).read_text()
    assert evaluate(config("MMBench_DEV_EN", "TextVQA_VAL"), never) == whole


def knows_or_reads(text):
    return knows_numbers(text) if "number" in text else "Stop!"


def test_benchmarks_join_later_and_other_settings_are_refused(config, run):
    evaluate(config("AI2D_TEST"), Somebody(knows_numbers))
    scores = evaluate(config("TextVQA_VAL"), Somebody(knows_or_reads))
    assert list(scores["benchmarks"]) == ["AI2D_TEST", "TextVQA_VAL"]
    assert scores["benchmarks"]["TextVQA_VAL"]["score"] == 1
    with pytest.raises(RunError, match="limit: 0 in the folder, 1 now"):
        evaluate(config("AI2D_TEST", limit=1), never)
    with pytest.raises(RunError, match="max_new_tokens: 16 in the folder, 9 now"):
        evaluate(config("AI2D_TEST", max_new_tokens=9), never)
    runs.write_text(run / "adapter" / "adapter_config.json", '{"r": 1}')
    with pytest.raises(RunError, match="adapter"):
        evaluate(config("AI2D_TEST"), never)


def test_the_base_model_has_a_folder_of_its_own_and_a_limit_is_kept(config, run):
    scores = evaluate(config("MMBench_DEV_EN", "MME", base_only=True, limit=2), Somebody(lambda text: "A, or yes"))
    assert (run / "eval-base" / "scores.json").exists()
    assert not (run / "eval").exists()
    assert scores["benchmarks"]["MMBench_DEV_EN"]["questions"] == 2
    assert scores["benchmarks"]["MME"]["rows"] == 4
    assert scores["settings"]["trained"] == {}


def test_mme_adds_up(config):
    scores = evaluate(config("MME"), Somebody(lambda text: "Yes." if "count" in text or "Yes" in text else "no"))
    found = scores["benchmarks"]["MME"]
    assert found["perception"] == {"points": 2000 - 150, "most": 2000}  # count: half of the answers, no image
    assert found["cognition"] == {"points": 800, "most": 800}
    assert found["score"] == pytest.approx(2650 / 2800)


def test_the_test_split_has_no_score_but_a_file_for_the_leaderboard(config, run):
    scores = evaluate(config("MMBench_TEST_EN"), Somebody(lambda text: "B." if "number 1" in text else "Hm & <hm>\x01"))
    found = scores["benchmarks"]["MMBench_TEST_EN"]
    assert (found["score"], found["unmatched"], scores["columns"]) == (None, 9, {})
    table = read_xlsx(run / "eval" / found["submission"])
    assert table[0] == [
        "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split", "prediction",
    ]  # fmt: skip
    assert len(table) == 1 + 12
    assert table[1][:1] + table[1][1:6] + table[1][9:] == [
        1, "Which is number 1?", "", "one", "two", "three", "logic_reasoning", "", "B",
    ]  # fmt: skip
    assert table[2][-1] == "Hm & <hm>"
    assert [row[0] for row in table[1:6]] == [1, 2, 3, 4, 1000001]


def test_what_the_leaderboard_says_fills_the_hidden_score_and_stays(config, run):
    evaluate(config("MMBench_TEST_EN", "MMBench_DEV_EN"), Somebody(lambda text: "B"))
    scores = evaluate(config("MMBench_TEST_EN", leaderboard=("MMBench_TEST_EN=50",)), never)
    found = scores["benchmarks"]["MMBench_TEST_EN"]
    assert (found["score"], found["leaderboard"], found["n"]) == (0.5, 0.5, 4)
    assert found["interval"][0] < 0.5 < found["interval"][1]
    assert scores["columns"] == {"MMBench EN": "MMBench_TEST_EN"}  # as in the paper, before the dev split
    assert evaluate(config("MMBench_DEV_EN"), never) == scores
    for wrong in ("MMBench_DEV_EN=50", "MMBench_TEST_EN=101", "MMBench_TEST_EN", "MMBench_TEST_CN=50"):
        with pytest.raises(ConfigError, match="expected NAME=PERCENT"):
            evaluate(config("MMBench_TEST_EN", leaderboard=(wrong,)), never)


def read_xlsx(path):
    """Rows of the first sheet of a workbook, by the letters of its cells."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    table = []
    for row in sheet.iter(f"{space}row"):
        line = [""] * 12
        for cell in row:
            number, text = cell.find(f"{space}v"), cell.find(f"{space}is/{space}t")
            line["ABCDEFGHIJKL".index(cell.get("r").rstrip("0123456789"))] = (
                int(number.text) if number is not None else text.text
            )
        table.append(line)
    return table


def test_a_workbook_is_the_same_bytes_for_the_same_table():
    assert workbook([["a", 1]]) == workbook([["a", 1]]) != workbook([["a", 2]])
    with pytest.raises(DataError, match="Cell A1 would hold 32768"):
        workbook([["x" * 32768]])


def test_a_judge_may_be_added_later_and_its_scores_stay(config, run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    lost = evaluate(config("AI2D_TEST", "MMVet"), Somebody(lambda text: "It has a dog."))
    assert [lost["benchmarks"][name]["score"] for name in ("AI2D_TEST", "MMVet")] == [0, 0.5]
    assert [lost["benchmarks"][name]["unmatched"] for name in ("AI2D_TEST", "MMVet")] == [4, 3]
    assert "## AI2D_TEST: the first 4 of 4" in (run / "eval" / "unparsed.md").read_text()
    with judge_server(lambda number, prompt: "0.7" if "Ground truth" in prompt else "A") as server:
        judged = evaluate(config("AI2D_TEST", "MMVet", judge_url=server.url, judge_model="gpt-4"), never)
        again = evaluate(config("AI2D_TEST", "MMVet", judge_url=server.url, judge_model="gpt-4"), never)
        assert len(server.requests) == 4 + 1  # the three questions of MMVet are the same
    assert judged == again
    assert judged["benchmarks"]["MMVet"]["score"] == pytest.approx(0.7)
    assert judged["benchmarks"]["AI2D_TEST"]["score"] == 0.25  # question 3
    assert (judged["benchmarks"]["AI2D_TEST"]["judged"], judged["benchmarks"]["AI2D_TEST"]["unmatched"]) == (4, 0)
    assert judged["benchmarks"]["AI2D_TEST"]["judge"]["model"] == "gpt-4"
    later = evaluate(config("TextVQA_VAL"), Somebody(lambda text: "stop"))
    assert later["benchmarks"]["MMVet"] == judged["benchmarks"]["MMVet"]
    everything = "".join(path.read_text() for path in run.rglob("*") if path.is_file())
    assert "sk-secret" not in everything


def test_the_mean_needs_all_nine_columns(config, data, run):
    for row in BENCHMARKS:
        if not (data / f"{row.name}.tsv").exists():
            extra = {"question_type": "multi_choice", "answer_type": "text", "choices": "['one', 'two', 'three']"}
            write_tsv(data / f"{row.name}.tsv", [choice_row(1, **(extra if row.kind == "mathvista" else {}))])
    names = [row.name for row in BENCHMARKS if row.answers and row.name not in ("ScienceQA_VAL", "MME")]
    somebody = Somebody(lambda text: "A")
    assert evaluate(config(*names), somebody)["mean"] is None
    scores = evaluate(config("MME", "ScienceQA_VAL"), somebody)
    assert list(scores["columns"]) == list(COLUMNS)
    assert scores["columns"]["SciQA"] == "ScienceQA_TEST"
    used = [scores["benchmarks"][name]["score"] for name in scores["columns"].values()]
    assert scores["mean"] == pytest.approx(sum(used) / 9)


def test_files_of_ones_own_are_multiple_choice_or_what_is_said(config, data):
    write_tsv(data / "mine.tsv", [choice_row(1), choice_row(2)])
    assert evaluate(config("mine"), Somebody(lambda text: "A"))["benchmarks"]["mine"]["score"] == 1
    write_tsv(data / "words.tsv", [{"index": 1, "question": "What?", "answer": "a dog", "image": image_text()}])
    with pytest.raises(DataError, match="say how it is scored with --kind"):
        evaluate(config("words"), never)
    somebody = Somebody(lambda text: "Dog.")
    found = evaluate(config("words", kind="vqa"), somebody)["benchmarks"]["words"]
    assert (found["score"], found["published"], found["version"]) == (1, None, None)
    assert somebody.asked[0][0] == "What?\nAnswer the question using a single word or phrase."
    with pytest.raises(DataError, match="published as kind 'choice'"):
        evaluate(config("AI2D_TEST", kind="vqa"), never)


def test_a_published_benchmark_of_another_length_is_noticed(config):
    with pytest.warns(MoSLoRAWarning, match="holds 4 questions, AI2D_TEST as published 3088"):
        evaluate(config("AI2D_TEST"), Somebody(lambda text: "A"))


def test_missing_files_unfinished_runs_and_odd_settings_are_named(config, run):
    with pytest.raises(DataError, match=r"No benchmark 'SEEDBench_IMG'.*Found in .*AI2D_TEST.*publishes it at https"):
        evaluate(config("SEEDBench_IMG"), never)
    with pytest.raises(ConfigError, match=r"limit is -1[\s\S]*judge_workers is 0[\s\S]*benchmarks is empty"):
        evaluate(config(limit=-1, judge_workers=0), never)
    with pytest.raises(ConfigError, match="give judge_url as well"):
        evaluate(config("MME", judge_model="gpt"), never)
    runs.write_json(run / "run.json", {"status": "done", "task": "commonsense"})
    with pytest.raises(RunError, match="a run of the task 'commonsense'"):
        evaluate(config("MME"), never)
    runs.write_json(run / "run.json", {"status": "running"})
    with pytest.raises(RunError, match="not finished"):
        evaluate(config("MME"), never)


def test_chinese_questions_get_the_chinese_instruction_and_hints_come_first(config, data):
    write_tsv(data / "mine.tsv", [choice_row(1, hint="提示"), choice_row(2, hint="A hint.")])
    somebody = Somebody(lambda text: "A")
    evaluate(config("mine"), somebody)
    texts = [text for text, _, _ in somebody.asked]
    assert "提示\nWhich is number 1?\nA. one\nB. two\nC. three\n请直接回答选项字母。" in texts
    assert any(text.startswith("A hint.\nWhich is number 2?") and text.endswith("directly.") for text in texts)


def test_real_items_of_mmbench_go_the_whole_way(run, config):
    data = data_folder("mmbench_samples")
    somebody = Somebody(lambda text: "B")
    settings = config("MMBench_EN_samples", kind="circular")
    found = evaluate(type(settings)(**{**vars(settings), "data": data}), somebody)["benchmarks"]["MMBench_EN_samples"]
    assert (found["n"], found["rows"], found["correct"], found["vanilla"]["correct"]) == (20, 78, 0, 8)
    assert len({size for _, size, _ in somebody.asked}) > 5
    assert sum(each["n"] for each in found["parts"]["abilities"].values()) == 20


def test_the_report_of_unread_answers_shows_the_first_five():
    lost = {"one": [{"index": str(n), "output": f"line\n{n}", "answer": "A"} for n in range(7)], "two": []}
    text = unparsed_report(lost, {"one": 10, "two": 4})
    assert "| one | 7 | 10 |\n| two | 0 | 4 |" in text
    assert "## one: the first 5 of 7" in text
    assert "Row 4, expected `A`:\n\n    line\n    4" in text
    assert "Row 5" not in text
    assert "## two" not in text
