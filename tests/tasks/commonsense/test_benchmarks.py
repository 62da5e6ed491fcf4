"""The rows of the eight benchmarks against the published files."""

import gzip

import pytest

from moslora.tasks.commonsense.benchmarks import BENCHMARKS, content_sha256, find_benchmark, is_published
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.score import chance
from tests.helpers import data_folder

REBUILT = {"hellaswag"}  # from the questions of the original, see the README of the data


@pytest.mark.parametrize("row", BENCHMARKS, ids=lambda row: row.name)
def test_a_row_says_what_is_in_the_published_file(row):
    path = next((data_folder("commonsense") / row.name).glob("test.json*"))
    items = read_items(path, needs=("instruction", "answer"))
    assert len(items) == row.questions
    assert {item["answer"] for item in items} <= set(row.words)
    assert chance(items, row.words) == pytest.approx(row.chance)
    assert is_published(row.name, content_sha256(path)) is (None if row.name in REBUILT else True)


def test_another_file_is_not_the_published_one_and_one_of_ones_own_is_unknown(tmp_path):
    plain, packed = tmp_path / "test.json", tmp_path / "test.json.gz"
    plain.write_bytes(b"[]")
    packed.write_bytes(gzip.compress(b"[]"))
    empty_list = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
    assert content_sha256(plain) == content_sha256(packed) == empty_list
    assert is_published("boolq", empty_list) is False
    assert is_published("mine", empty_list) is None


def test_names_are_unique():
    assert len({row.name for row in BENCHMARKS}) == 8
    assert find_benchmark("mine") is None
