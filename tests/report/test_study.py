"""The report of a study: its numbers are those of statistics.json, it needs nothing else, and it trusts no name."""

import csv
import html.parser
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from moslora import runs
from moslora.cli import main
from moslora.errors import DataError, RunError
from moslora.report.published import read_published
from moslora.report.study import write_report

from . import studies

LARGEST = 2_000_000  # bytes of a page
HOSTILE = "<script>alert('x')</script> & \"q\" $x^2$ |`*[a](http://evil)"


class Parser(html.parser.HTMLParser):
    """Tables as {caption: rows of (text, exact value)}, and every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.words = [], [], []
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self._cell = ["", dict(attributes).get("data-value")]
            self.tables[-1][-1].append(self._cell)
        elif tag == "small":
            self.handle_data(" ")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell[0] += data


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "study"
    statistics = studies.write_study(folder)
    page = write_report(folder, folder / "report", "always")
    return folder, statistics, Parser(page.read_text(encoding="utf-8"))


def test_the_page_has_the_numbers_of_the_statistics(study):
    _, statistics, page = study
    header, base, *rows = next(
        table for table in page.tables if table[0][2][0].startswith("minus") and len(table[0]) > 6
    )
    names = [text for text, _ in header]
    assert float(base[names.index("average")][1]) == statistics["base"]["average"]
    assert [row[0][0] for row in rows] == list(studies.METHODS)
    for row, arm in zip(rows, statistics["arms"], strict=True):
        values = dict(zip(names, row, strict=True))
        for benchmark, found in arm["benchmarks"].items():
            assert float(values[benchmark][1]) == found["mean"]
            assert values[benchmark][0] == f"{100 * found['mean']:.1f}"
        low, high = arm["average"]["interval"]
        assert values["average"][0] == f"{100 * arm['average']['mean']:.1f} {100 * low:.1f} to {100 * high:.1f}"
        assert float(values["average"][1]) == arm["average"]["mean"]
        assert int(values["parameters"][1]) == arm["parameters"]
        if arm["method"] == "lora":
            assert values["minus lora"] == ["–", None]  # noqa: RUF001
        else:
            assert float(values["minus lora"][1]) == arm["against_baseline"]["difference"]
            assert float(values["p (Holm)"][1]) == arm["against_baseline"]["p_holm"]


def test_the_conclusions_come_first_word_for_word(study):
    _, statistics, page = study
    words = [word for word in page.words if word.strip()]
    titles = [word for word in words if word == "Results"]
    places = [words.index(sentence) for sentence in statistics["conclusions"]]
    assert titles
    assert max(places) < len(words) - words[::-1].index("Results")


def test_csv_files_give_back_every_number(study):
    folder, statistics, _ = study
    tables = {
        name: list(csv.DictReader((folder / "report" / f"{name}.csv").open(encoding="utf-8", newline="")))
        for name in ("results", "accuracies", "sweep")
    }
    for row, arm in zip(tables["results"], statistics["arms"], strict=True):
        assert (row["method"], float(row["average"])) == (arm["method"], arm["average"]["mean"])
        assert [float(row["average_low"]), float(row["average_high"])] == arm["average"]["interval"]
        assert row["difference"] == (str(arm["against_baseline"]["difference"]) if arm["against_baseline"] else "")
    expected = [
        (arm["method"], name, seed, accuracy)
        for arm in statistics["arms"]
        for name, found in arm["benchmarks"].items()
        for seed, accuracy in zip(arm["seeds"], found["accuracies"], strict=True)
    ]
    found = [
        (row["method"], row["benchmark"], int(row["seed"]), float(row["accuracy"])) for row in tables["accuracies"]
    ]
    assert found == expected
    assert len(tables["sweep"]) == 14 * 3 * 5


def test_the_page_needs_no_other_file_and_no_script(study):
    folder, _, page = study
    text = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            if name in attributes:
                assert re.match(r"#|data:image/", attributes[name]), (tag, attributes[name])
    assert not re.search(r"url\((?!#)|@import", text)


def test_every_name_in_the_page_is_used_once_and_every_link_leads_somewhere(study):
    _, _, page = study
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.tags:
        for link in (attributes.get("href", ""), attributes.get("xlink:href", "")):
            assert not link.startswith("#") or link[1:] in names


def test_figures_speak_and_table_headings_have_a_scope(study):
    folder, _, page = study
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" or tag == "img"]
    assert len(pictures) >= 5
    assert all(len(attributes.get("aria-label") or attributes.get("alt", "")) > 30 for attributes in pictures)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    for name in ("arms", "parameters", "rates", "losses", "mixers"):
        assert (folder / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_published_numbers_stay_in_their_own_tables(study, tmp_path):
    _, _, page = study
    [table] = [
        table for table in page.tables if table[0][0][0] == "method" and "memory" in [c[0] for c in table[0]][1:4]
    ]
    assert [cell[0] for cell in table[-1]][:4] == ["MoSLoRA", "28.4M", "8.2h", "31G"]
    assert "85.6" in table[-1][-1]
    ours = next(table for table in page.tables if table[0][2][0].startswith("minus") and len(table[0]) > 6)
    assert "LLaMA" not in json.dumps(ours)


@pytest.mark.parametrize(("benchmarks", "shown"), [(studies.PAPER, True), (("boolq",), True), (("toy-boolq",), False)])
def test_published_numbers_appear_only_beside_benchmarks_of_the_same_name(tmp_path, benchmarks, shown):
    sizes = {"methods": ("lora", "moslora"), "rates": (1e-3,), "seeds": (0, 1), "steps": 9}
    studies.write_study(tmp_path, benchmarks=benchmarks, **sizes)
    text = write_report(tmp_path, tmp_path / "report").read_text(encoding="utf-8")
    assert ("Published numbers" in text) == shown


def test_every_published_average_is_the_mean_of_its_eight_but_one():
    published = read_published()
    rows = published["table1"] + published["table4"]
    odd = [row["label"] for row in rows if abs(sum(row["accuracies"]) / 8 - row["average"]) > 0.05 + 1e-9]
    assert len(rows) == 12
    assert odd == ["FLoRA"]  # 84.2625, printed as 84.2
    assert {row["label"]: row.get("average") for row in published["table3"]}["Orthogonal Matrix"] == 84.4


def test_no_name_can_put_markup_into_the_report(tmp_path):
    sizes = {"methods": ("lora", HOSTILE), "benchmarks": (HOSTILE, "b"), "rates": (1e-3, 1e-2), "seeds": (0, 1)}
    statistics = studies.write_study(tmp_path, steps=9, **sizes)
    statistics["conclusions"] = [HOSTILE]
    statistics["failed"] = [{"cell": HOSTILE, "error": HOSTILE}]
    pair = {"method": HOSTILE, "against": HOSTILE, "difference": 0.1, "p": 0.5}
    entry = {"train_fraction": 1.0, "moslora_against_lora": None, "comparisons": [pair], "conclusion": HOSTILE}
    statistics["initialisation"] = [entry]
    runs.write_json(tmp_path / "statistics.json", statistics)
    path = write_report(tmp_path, tmp_path / "report")
    page = Parser(path.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert any(HOSTILE in word for word in page.words)
    assert any(row[0][0] == HOSTILE for table in page.tables for row in table)
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    markdown = "\n".join(line for line in lines if not line.startswith("    "))  # code is shown as it is
    assert not re.search(r"(?<!\\)<|(?<![\\!])\[", markdown)


def test_the_same_report_is_drawn_again_and_foreign_files_stay(tmp_path):
    folder = tmp_path / "study"
    studies.write_study(folder, methods=("lora", "moslora"), rates=(1e-3,), seeds=(0, 1), fractions=(0.5, 1.0), steps=9)
    page = write_report(folder, folder / "report")
    assert (folder / "report" / "fractions.png").exists()
    (folder / "report" / "notes.txt").write_text("mine")
    statistics = runs.read_json(folder / "statistics.json")
    statistics["arms"] = [arm for arm in statistics["arms"] if arm["train_fraction"] == 1.0]
    runs.write_json(folder / "statistics.json", statistics)
    write_report(folder, folder / "report")
    assert not (folder / "report" / "fractions.png").exists(), "a figure that no longer exists was left"
    assert (folder / "report" / "notes.txt").read_text() == "mine"

    (page.parent / ".report.json").unlink()
    before = page.read_bytes()
    with pytest.raises(RunError, match="which no report has written"):
        write_report(folder, folder / "report")
    assert page.read_bytes() == before


def test_a_study_without_statistics_shows_its_finished_cells(tmp_path, capsys):
    studies.write_study(tmp_path, methods=("lora", "moslora"), rates=(1e-3,), seeds=(0,), steps=9)
    (tmp_path / "statistics.json").unlink()
    assert main(["report", str(tmp_path)]) == 0
    path = tmp_path / "report" / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    page = Parser(path.read_text(encoding="utf-8"))
    assert any("no statistics yet" in word for word in page.words)
    assert [row[0][0] for row in page.tables[0][1:]] == ["lora", "moslora"]
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(RunError, match="No cell of the study"):
        write_report(tmp_path, tmp_path / "report")


def test_statistics_that_lack_something_are_an_error_that_says_what(tmp_path):
    statistics = studies.write_study(tmp_path, methods=("lora",), rates=(1e-3,), seeds=(0,), steps=9)
    del statistics["arms"][0]["average"]
    runs.write_json(tmp_path / "statistics.json", statistics)
    with pytest.raises(DataError, match="'average'"):
        write_report(tmp_path, tmp_path / "report")


def test_a_study_of_one_seed_has_no_intervals_and_the_report_says_so_with_a_dash(tmp_path):
    studies.write_study(tmp_path, methods=("lora", "moslora"), rates=(1e-3,), seeds=(0,), steps=9)
    page = Parser(write_report(tmp_path, tmp_path / "report").read_text(encoding="utf-8"))
    header, *rows = next(table for table in page.tables if table[0][2][0].startswith("minus") and len(table[0]) > 6)
    assert rows[1][[text for text, _ in header].index("average")][0].endswith(" –")  # noqa: RUF001


def test_the_command_refuses_what_it_cannot_place(tmp_path, capsys):
    studies.write_study(tmp_path / "s", methods=("lora",), rates=(1e-3,), seeds=(0, 1), steps=9)
    cells = [str(tmp_path / "s" / "cells" / "0" / f"lr0.001-f1.0-seed{seed}") for seed in (0, 1)]
    assert main(["report", *cells]) == 1
    assert "--out" in capsys.readouterr().err
    assert main(["report", *cells, "--out", str(tmp_path / "out")]) == 0
    assert "(seed 0)" in (tmp_path / "out" / "results.csv").read_text()
    assert main(["report", str(tmp_path / "s"), cells[0], "--out", str(tmp_path / "out2")]) == 1
    assert "report it alone" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "run.json" in capsys.readouterr().err


def test_a_report_needs_no_torch(tmp_path):
    studies.write_study(tmp_path, methods=("lora", "moslora"), rates=(1e-3,), seeds=(0,), steps=9)
    code = "import sys\nfrom moslora.cli import main\nmain(['report', sys.argv[1]])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_command_on_the_page_asks_for_the_same_study(study):
    folder, _, page = study
    words = shlex.split("".join(page.words[page.words.index("To repeat the study:") + 1 :]).strip().partition("\n")[0])
    assert words[:3] == ["moslora", "compare", "commonsense"]
    flags = {}
    for word in words[3:]:
        if word.startswith("--"):
            flags[word] = []
        else:
            flags[list(flags)[-1]].append(word)
    record = runs.read_json(folder / "study.json")
    assert tuple(flags["--methods"]) == studies.METHODS
    assert flags["--benchmarks"] == record["benchmarks"]
    assert [float(rate) for rate in flags["--learning-rates"]] == record["config"]["learning_rates"]
    assert flags["--train-fractions"] == ["1.0"]
    assert (flags["--tests"], flags["--set"], flags["--eval"]) == (["tests"], ["rank=8"], ["num_beams=1"])


def test_the_losses_in_the_csv_are_the_logged_ones(study):
    folder, statistics, _ = study
    rows = list(csv.DictReader((folder / "report" / "losses.csv").open(encoding="utf-8", newline="")))
    chosen = statistics["arms"][3]
    cell = folder / "cells" / f"3/lr{chosen['learning_rate']}-f1.0-seed2"
    logged = {row["step"]: row["loss"] for row in runs.read_rows(cell / "metrics.jsonl")}
    found = {int(row["step"]): float(row["loss"]) for row in rows if (row["label"], row["run"]) == ("lokr", "2")}
    assert found == logged


def test_a_study_without_its_cells_is_drawn_from_its_statistics_and_says_what_is_missing(tmp_path):
    studies.write_study(tmp_path, methods=("lora", "moslora"), rates=(1e-3,), seeds=(0, 1), steps=9)
    shutil.rmtree(tmp_path / "cells")
    page = Parser(write_report(tmp_path, tmp_path / "report").read_text(encoding="utf-8"))
    assert "Not drawn: 2 of 2, whose run folders with logged losses are not here." in page.words
    assert not (tmp_path / "report" / "losses.png").exists()


def test_no_name_of_a_run_can_put_markup_into_its_report(tmp_path):
    studies.write_study(tmp_path, methods=(HOSTILE,), rates=(1e-3,), seeds=(0,), steps=9)
    assert main(["report", str(tmp_path / "cells" / "0" / "lr0.001-f1.0-seed0"), "--out", str(tmp_path / "out")]) == 0
    page = Parser((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert page.tables[0][1][0][0] == HOSTILE
