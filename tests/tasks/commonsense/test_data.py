import csv
import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from moslora.errors import ConfigError, DataError
from moslora.tasks.commonsense import data
from moslora.tasks.commonsense.data import parse_columns, read_items, source_sha256
from tests.helpers import data_folder

ITEM = {"instruction": "Which one, number 3?", "input": "", "output": "the correct answer is answer3"}
ITEMS = [
    {
        "instruction": 'She said "no", then\n\nleft.',
        "input": "",
        "output": "the correct answer is true",
        "answer": "true",
    },
    {"instruction": "Zwölf\tTöne, 音", "input": "a, b", "output": "1", "answer": "1"},
]


@pytest.fixture(autouse=True)
def no_cache_outside(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _table(delimiter, rows=ITEMS):
    def write(path):
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)

    return write


def _lines(path):
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS) + "\n")


def _folder_of_files(path):
    path.mkdir()
    _lines(path / "train.jsonl")


WRITERS = {
    "x.json": lambda path: path.write_text(json.dumps(ITEMS)),
    "x.jsonl": _lines,
    "x.csv": _table(","),
    "x.tsv": _table("\t"),
    "x.parquet": lambda path: datasets.Dataset.from_list(ITEMS).to_parquet(path),
    "saved": lambda path: datasets.Dataset.from_list(ITEMS).save_to_disk(path),
    "saved-splits": lambda path: datasets.DatasetDict(train=datasets.Dataset.from_list(ITEMS)).save_to_disk(path),
    "files": _folder_of_files,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_items(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    assert read_items(path) == ITEMS
    if path.is_dir():
        assert read_items(f"hf:{path}:train") == ITEMS
    elif name != "x.parquet":
        packed = path.with_name(f"{name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert read_items(packed) == ITEMS


def test_a_split_can_be_named_and_a_missing_one_is_refused(tmp_path):
    parts = {"train": datasets.Dataset.from_list(ITEMS), "dev": datasets.Dataset.from_list(ITEMS[:1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert read_items(f"hf:{tmp_path / 'saved'}:dev") == ITEMS[:1]
    with pytest.raises(DataError, match="Expected a data set with a split 'test'"):
        read_items(f"hf:{tmp_path / 'saved'}:test")


def test_a_hub_name_says_config_revision_and_split(monkeypatch):
    asked = []

    def load_dataset(*place, **options):
        asked.append((*place, options["revision"], options["split"]))
        return datasets.Dataset.from_list(ITEMS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("hf:someone/set", "hf:someone/set:dev", "hf:someone/set/easy@v1:dev", "hf:someone/set@abc"):
        assert read_items(name) == ITEMS
    assert asked == [
        ("someone/set", None, None, "train"),
        ("someone/set", None, None, "dev"),
        ("someone/set", "easy", "v1", "dev"),
        ("someone/set", None, "abc", "train"),
    ]


def test_what_the_hub_says_is_passed_on(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="Cannot load 'hf:someone/set': ConnectionError: no network"):
        read_items("hf:someone/set")


def test_columns_of_other_names_are_mapped(tmp_path):
    path = tmp_path / "x.csv"
    _table(",", [{"question": "Who?", "response": "me"}])(path)
    with pytest.raises(DataError, match=r"no text under instruction, output: found .*question.*--columns"):
        read_items(path)
    columns = parse_columns(["instruction=question", "output=response"])
    (item,) = read_items(path, columns=columns)
    assert (item["instruction"], item["input"], item["output"]) == ("Who?", "", "me")
    with pytest.raises(DataError, match="no text under reply"):
        read_items(path, columns={**columns, "output": "reply"})


@pytest.mark.parametrize("text", ["output", "output=", "result=reply"])
def test_a_mapping_that_cannot_be_used_is_refused(text):
    with pytest.raises(ConfigError, match="expected NAME=COLUMN, where NAME is instruction, input, output, answer"):
        parse_columns([text])


def test_the_identity_of_a_data_set_is_its_content(tmp_path):
    for name in ("saved", "files"):
        WRITERS[name](tmp_path / name)
    hashes = {source_sha256(str(tmp_path / name), read_items(tmp_path / name)) for name in ("saved", "files")}
    assert len(hashes) == 1
    assert source_sha256(str(tmp_path / "saved"), ITEMS[:1]) not in hashes


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
    ("name", "content", "message"),
    [
        ("x.json", "[{", "Cannot read"),
        ("x.json", "{}", "expected a JSON list"),
        ("x.json", "[]", "expected a JSON list"),
        ("x.json", json.dumps(ITEM) + "\n" + json.dumps(ITEM), r"one object a line is named \.jsonl"),
        ("x.json", json.dumps([ITEM, {"instruction": "x"}]), "Item 1 of .* has no text under output"),
        ("x.json", json.dumps([{**ITEM, "output": 3}]), "Item 0 of .* has no text under output"),
        ("x.json", json.dumps([{**ITEM, "input": 3}]), "Item 0 of .* has no text under input"),
        ("x.jsonl", json.dumps(ITEM) + "\n{", "Cannot read"),
        ("x.csv", "instruction,input,answer\na,b,c\n", "Item 0 of .* has no text under output"),
        ("x.csv", "instruction,output\na,b\nc\n", "row 2 has not the 2 cells"),
        ("x.tsv", "instruction\toutput\na\tb\tc\n", "row 1 has not the 2 cells"),
        ("x.parquet", "not parquet", "Cannot read"),
        ("x.txt", "[]", r"unknown ending '\.txt'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_items(path)


@pytest.mark.parametrize("name", ["train.json.gz", "train.parquet"])
def test_a_file_that_unpacks_to_too_much_is_refused_before_it_fills_the_memory(name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MOST_UNPACKED", 1 << 20)
    path, text = tmp_path / name, "a" * (1 << 21)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(json.dumps([ITEM | {"input": text}]).encode()))
    else:
        rows = [ITEM | {"input": f"{number}{text[:4000]}"} for number in range(512)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(DataError, match=r"unpacks to .*1,048,576"):
        read_items(path)


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(json.dumps([ITEM] * 50).encode())[:-20])
    with pytest.raises(DataError, match="Cannot read"):
        read_items(path)
