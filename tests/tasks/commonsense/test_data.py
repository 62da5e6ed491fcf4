import gzip
import json

import pytest

from moslora.errors import DataError
from moslora.tasks.commonsense.data import read_items
from tests.helpers import data_folder

ITEM = {"instruction": "Which one, number 3?", "input": "", "output": "the correct answer is answer3"}


def test_all_real_files_are_read():
    folder = data_folder("commonsense")
    counts = {path.parent.name: len(read_items(path)) for path in folder.glob("*/test.json*")}
    assert counts == {
        "ARC-Challenge": 1172,
        "ARC-Easy": 2376,
        "boolq": 3270,
        "hellaswag": 10042,
        "openbookqa": 500,
        "piqa": 1838,
        "social_i_qa": 1954,
        "winogrande": 1267,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "Cannot read"),
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
        (json.dumps([ITEM, {"instruction": "x"}]), "Item 1 of .* has no text under output"),
        (json.dumps([{**ITEM, "output": 3}]), "Item 0 of .* has no text under output"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_items(path)


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(json.dumps([ITEM] * 50).encode())[:-20])
    with pytest.raises(DataError, match="Cannot read"):
        read_items(path)
