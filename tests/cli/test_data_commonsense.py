"""`moslora data commonsense` on a file whose numbers are known."""

import json

from moslora.cli import main


def _item(question, answer):
    instruction = f"{question} Answer1: x Answer2: y\n\nAnswer format: answer1/answer2"
    return {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


def test_the_tables_say_what_the_data_holds(tmp_path, capsys):
    questions = [_item(f"Number {number}?", "answer1") for number in range(8)]
    long = _item("word " * 300, "answer2")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "test.json").write_text(json.dumps([questions[0], _item("Another?", "answer1")]))
    path = tmp_path / "train.json"
    path.write_text(json.dumps([*questions, questions[3], long]))
    words = ["data", "commonsense", "--data", str(path), "--overlap-with", str(tmp_path), "--model", "embedded"]
    assert main(words) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["answer1/answer2", "10"] in rows
    assert ["repeat an earlier sample", "1"] in rows
    assert ["toy", "2", "1", "0", "1"] in rows
    assert ["samples longer than 256 (cut)", "1"] in rows
    assert ["of these without any of their answer", "1"] in rows


def test_other_data_than_expected_is_an_error_only_when_it_cannot_be_read(tmp_path, capsys):
    assert main(["data", "commonsense", "--data", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
    assert main(["data", "commonsense"]) == 1
    assert "--data" in capsys.readouterr().err
