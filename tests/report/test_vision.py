"""The report of vision-language runs: Table 5's row, the radar, what was lost."""

import csv
import re
import subprocess
import sys

import pytest

from moslora import runs
from moslora.errors import DataError
from moslora.report.published import read_published
from moslora.report.radar import Axes, innermost, radar_figure, relative
from moslora.report.run_folders import write_runs_report
from moslora.report.vision import read_scored
from moslora.tasks.vision_language.evaluation.benchmarks import COLUMNS

from .vision_runs import LORA, MOSLORA, MOSLORA_ABILITIES, NAMES, write_run


def two_runs(folder):
    """One of LoRA and one of MoSLoRA, with the scores of the paper's InternLM2."""
    lora = write_run(folder / "lora", "lora", dict(zip(NAMES, LORA, strict=True)))
    moslora = write_run(folder / "moslora", "moslora", dict(zip(NAMES, MOSLORA, strict=True)), MOSLORA_ABILITIES)
    return [lora, moslora]


@pytest.fixture
def folders(tmp_path):
    return two_runs(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of their report."""
    folder = tmp_path_factory.mktemp("runs")
    return write_runs_report(two_runs(folder), folder / "report").parent


def lines_of(markdown):
    """First column -> the other columns, of all tables."""
    rows = [re.split(r" \| ", line.strip("| \n")) for line in markdown.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_table_5_has_the_papers_columns_and_its_rows_below(report):
    text = (report / "report.md").read_text()
    table = lines_of(text.split("## Nine benchmarks")[1].split("## Abilities")[0])
    assert table["run"] == [*COLUMNS, "Avg."]
    assert [cell.split(" (")[0] for cell in table["lora"]] == [f"{score:.1f}" for score in (*LORA, 57.8)]
    assert [cell.split(" (")[0] for cell in table["moslora"]] == [f"{score:.1f}" for score in (*MOSLORA, 59.5)]
    assert table["paper: InternLM2, QMoSLoRA, Kaiming"] == [f"{score:.1f}" for score in (*MOSLORA, 59.5)]
    assert sum(name.startswith("paper: ") for name in table) == 6
    assert "MMBench EN: MMBench\\_DEV\\_EN" in text  # that it is not the paper's test split


def test_published_averages_are_the_means_of_their_columns():
    published = read_published()
    assert published["vision_columns"] == list(COLUMNS)
    for row in published["table5"]:
        assert row["average"] == pytest.approx(sum(row["scores"]) / 9, abs=0.06)
        assert len(row["scores"]) == 9


def test_an_average_of_fewer_columns_is_not_shown(tmp_path):
    run = write_run(tmp_path / "run", "moslora", {"MMBench_DEV_EN": 70.0, "AI2D_TEST": 60.0})
    write_runs_report([run], tmp_path / "report")
    table = lines_of((tmp_path / "report" / "report.md").read_text().split("## Nine")[1].split("## Abilities")[0])
    assert [cell.split(" (")[0] for cell in table["moslora"]] == ["70.0", "–", "–", "60.0", *["–"] * 6]  # noqa: RUF001


def test_abilities_mme_and_unread_answers_have_tables(report):
    text = (report / "report.md").read_text()
    abilities = text.split("## Abilities")[1].split("## Every benchmark")[0]
    assert "| run | overall | vanilla | LR | AR | RR | FP-S | FP-C | CP |" in abilities
    assert abilities.count("| moslora | ") == 2  # English and Chinese
    everything = text.split("## Every benchmark")[1].split("## Training loss")[0]
    table = lines_of(everything)
    assert table["MMVet, moslora"][2:] == ["218", "3", "7", "gpt-4-turbo", "published"]
    assert table["AI2D\\_TEST, lora"][4:] == ["–", "–", "published"]  # noqa: RUF001
    mme = lines_of(everything.split("MME in points")[1])
    assert [cell.split(" (")[0] for cell in mme["moslora"]] == ["1,282.0", "512.8", "1,794.8", "64.1"]


def test_every_score_is_in_the_csv_files(report):
    with (report / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert {(row["run"], row["benchmark"]): float(row["score"]) for row in rows}["moslora", "MME"] == pytest.approx(
        0.641
    )
    with (report / "parts.csv").open() as file:
        parts = list(csv.DictReader(file))
    assert len(parts) == 2 * (2 * 6 + 14)
    assert {row["part"]: float(row["score"]) for row in parts if row["of"] == "subtasks"}["OCR"] == pytest.approx(0.641)


def test_the_base_model_stands_first(folders, tmp_path):
    write_run(folders[0], "lora", dict.fromkeys(NAMES, 30.0), into="eval-base")
    labels = [each.label for each in read_scored({"lora": folders[0], "moslora": folders[1]})]
    assert labels == ["base model", "lora", "moslora"]
    page = write_runs_report(folders, tmp_path / "report").read_text()
    assert page.index(">base model<") < page.index(">lora<")


def test_runs_that_were_not_evaluated_have_no_such_sections(tmp_path):
    run = write_run(tmp_path / "run", "moslora", {"AI2D_TEST": 50.0})
    (run / "eval" / "scores.json").unlink()
    assert "Nine benchmarks" not in write_runs_report([run], tmp_path / "report").read_text()


def test_benchmarks_of_ones_own_need_no_table_of_the_papers(tmp_path):
    runs_of = [write_run(tmp_path / method, method, {"AI2D_TEST": 50.0}) for method in ("lora", "moslora")]
    for run in runs_of:
        scores = runs.read_json(run / "eval" / "scores.json")
        runs.write_json(run / "eval" / "scores.json", {**scores, "columns": {}, "settings": {"limit": 3}})
    page = write_runs_report(runs_of, tmp_path / "report").read_text()
    assert "Table 5" not in page
    assert "score (%), 95 % interval" in page
    assert (tmp_path / "report" / "scores.png").stat().st_size > 5000


def test_a_row_of_the_first_questions_alone_says_so(tmp_path):
    run = write_run(tmp_path / "run", "moslora", {"AI2D_TEST": 50.0})
    scores = runs.read_json(run / "eval" / "scores.json")
    runs.write_json(run / "eval" / "scores.json", {**scores, "settings": {"limit": 3}})
    assert "Only the first questions were asked of moslora (3)." in write_runs_report([run], tmp_path / "r").read_text()


def test_a_hidden_score_is_no_zero(tmp_path):
    run = write_run(tmp_path / "run", "moslora", {"AI2D_TEST": 50.0})
    scores = runs.read_json(run / "eval" / "scores.json")
    hidden = {**scores["benchmarks"]["AI2D_TEST"], "score": None, "interval": None, "parts": {}}
    scores["benchmarks"]["MMBench_TEST_EN"] = hidden
    runs.write_json(run / "eval" / "scores.json", scores)
    write_runs_report([run], tmp_path / "report")
    assert lines_of((tmp_path / "report" / "report.md").read_text())["MMBench\\_TEST\\_EN, moslora"][0] == "hidden"


def test_damaged_scores_are_an_error(folders, tmp_path):
    (folders[0] / "eval" / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores\.json"):
        write_runs_report(folders, tmp_path / "report")


def test_radars_show_every_run_and_axis(report):
    page = (report / "report.html").read_text()
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    radars = [figure for figure in figures if "radar chart" in figure]
    assert len(radars) == 2
    assert all(f">{name}<" in radars[0] for name in (*COLUMNS, "lora", "moslora", "73.8", "64.1"))
    assert all(f">{name}<" in radars[1] for name in ("LR", "FP-S", "CP", "MMBench, English", "MMBench, Chinese"))
    assert (report / "abilities.png").stat().st_size > 20_000


def test_axes_are_scaled_to_their_best_run():
    scaled, best = relative({"one": [0.5, 0.2, 0.0], "two": [0.25, 0.4, 0.0]})
    assert best == [0.5, 0.4, 0.0]
    assert scaled == {"one": [100, 50, 100], "two": [50, 100, 100]}
    assert [innermost(values) for values in ([95, 100], [50, 100], [3, 100], [100, 100])] == [90, 20, 0, 90]


def test_a_line_goes_through_the_scores_and_closes():
    figure = radar_figure([Axes("", ["x", "y", "z"], {"lora": [0.2, 0.4, 0.6], "moslora": [0.4, 0.4, 0.3]})])
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(lines["lora"]) == pytest.approx([50, 100, 100, 50])
    assert list(lines["moslora"]) == pytest.approx([100, 100, 50, 100])
    alone = radar_figure([Axes("", ["x", "y", "z"], {"lora": [0.2, 0.4, 0.6]})])
    assert list(alone.axes[0].lines[0].get_ydata()) == pytest.approx([20, 40, 60, 20])
    assert alone.axes[0].get_ylim() == (0, 100)


def test_runs_of_one_method_are_told_apart_by_their_dashes():
    values = [0.2, 0.4, 0.6]
    figure = radar_figure([Axes("", ["x", "y", "z"], {"moslora (seed 0)": values, "moslora (seed 1)": values})])
    first, second = figure.axes[0].lines
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def test_the_report_needs_no_torch():
    code = "import sys, moslora.report.vision; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
