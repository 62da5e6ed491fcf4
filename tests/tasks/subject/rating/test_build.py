"""Studies from run folders: which pictures become pairs, and what is left of where they come from."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from moslora.cli import main
from moslora.errors import ConfigError, DataError, RunError
from moslora.tasks.subject.rating.build import StudyConfig, build_study
from moslora.tasks.subject.rating.store import Store
from tests.helpers import data_folder

from .studies import SECRET_A, SECRET_B, make_study, write_references, write_run


def _pairs(folder):
    return Store(folder).rows("SELECT * FROM items WHERE kind = 'pair' ORDER BY prompt_index, seed")


def _pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def runs(tmp_path):
    """Two runs of one subject, and the folder of its photographs."""
    references = write_references(tmp_path / "robot")
    return (
        write_run(tmp_path / "a", SECRET_A, references, prompts=3, size=64),
        write_run(tmp_path / "b", SECRET_B, references, prompts=3, size=64),
        references,
    )


def test_pictures_of_one_prompt_and_seed_become_a_pair_with_every_pixel_kept(tmp_path, runs):
    study = build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")
    assert (study["a"], study["b"]) == (SECRET_A, SECRET_B)
    pairs = _pairs(tmp_path / "study")
    assert [(row["prompt_index"], row["seed"]) for row in pairs] == [(i, s) for i in range(3) for s in (0, 1)]
    for row in pairs:
        for side, run in (("a", runs[0]), ("b", runs[1])):
            original = run / "images" / f"{row['prompt_index']:04d}-{row['seed']}.png"
            found = _pixels(tmp_path / "study" / "pictures" / f"{row[side]}.webp")
            assert np.array_equal(found, _pixels(original))


def test_what_has_no_partner_is_said(tmp_path, runs):
    index = runs[1] / "images" / "images.jsonl"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([*lines[:-1], lines[-1].replace("a sks robot", "one sks robot")]) + "\n")
    study = build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")
    assert study["subjects"][0]["pairs"] == 5
    assert len(study["unmatched"]) == 2
    assert "0002-1.png (seed 1, 'a sks robot in a forest') has no partner" in study["unmatched"][0]


def test_nothing_in_common_is_an_error(tmp_path, runs):
    other = write_run(tmp_path / "c", SECRET_B, runs[2], subject="kettle", size=64)
    with pytest.raises(DataError, match="generate both with the same"):
        build_study(StudyConfig(pairs=((runs[0], other),)), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_prompts_and_their_pictures_are_drawn_from_the_seed(tmp_path):
    references = write_references(tmp_path / "robot")
    runs = tuple(write_run(tmp_path / name, name, references, prompts=8, size=64) for name in ("one", "two"))
    chosen = []
    for number, seed in enumerate((1, 1, 2)):
        config = StudyConfig(pairs=(runs,), prompts=3, per_prompt=1, seed=seed)
        build_study(config, tmp_path / f"study-{number}")
        chosen.append([(row["prompt"], row["seed"]) for row in _pairs(tmp_path / f"study-{number}")])
    assert [len({prompt for prompt, _ in each}) for each in chosen] == [3, 3, 3]
    assert chosen[0] == chosen[1] != chosen[2]
    with pytest.raises(ConfigError, match="9 prompts are asked for, but robot has 8"):
        build_study(StudyConfig(pairs=(runs,), prompts=9), tmp_path / "study")


def test_metadata_names_and_paths_are_gone(tmp_path):
    folder = make_study(tmp_path, size=64, prompts=2)
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != "study.json"]
    assert len(written) > 8
    for path in written:
        content = path.read_bytes()
        for secret in (SECRET_A, SECRET_B, str(tmp_path)):
            assert secret.encode() not in content, f"{path} names {secret}"
            assert secret not in path.name
        if path.suffix == ".webp":
            with Image.open(path) as picture:
                assert not picture.getexif()
                assert set(picture.info) <= {"loop", "background", "timestamp", "duration"}, picture.info


def test_photographs_lose_their_exif_and_stand_upright(tmp_path, runs):
    shutil.rmtree(runs[2])
    runs[2].mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by 90 degrees
    Image.new("RGB", (60, 40), "red").save(runs[2] / "0.jpg", exif=exif)
    build_study(StudyConfig(pairs=(runs[:2],), checks=0), tmp_path / "study")
    row = Store(tmp_path / "study").rows("SELECT * FROM photographs JOIN pictures ON id = picture")[0]
    assert (row["width"], row["height"]) == (40, 60)
    with Image.open(tmp_path / "study" / "pictures" / f"{row['id']}.webp") as picture:
        assert not picture.getexif()


def test_pictures_of_different_sizes_are_made_equal(tmp_path, runs):
    Image.new("RGB", (200, 100), "blue").save(runs[1] / "images" / "0000-0.png")
    study = build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")
    assert study["reshaped"] == 1
    row = _pairs(tmp_path / "study")[0]
    shapes = {_pixels(tmp_path / "study" / "pictures" / f"{row[side]}.webp").shape for side in "ab"}
    assert shapes == {(64, 64, 3)}


def test_plain_folders_will_do(tmp_path, runs):
    plain = [shutil.copytree(run / "images", tmp_path / f"plain-{side}") for run, side in zip(runs, "ab", strict=False)]
    with pytest.raises(ConfigError, match="--references"):
        build_study(StudyConfig(pairs=((plain[0], plain[1]),)), tmp_path / "study")
    study = build_study(StudyConfig(pairs=((plain[0], plain[1]),), references=(runs[2],)), tmp_path / "study")
    assert (study["a"], study["b"], study["subjects"][0]["name"]) == ("plain-a", "plain-b", "robot")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "../../a/run.json", "prompt_index": 0, "prompt": "x", "seed": 0}', "not inside"),
        ('{"file": "none.png", "prompt_index": 0, "prompt": "x", "seed": 0}', "not there"),
        ('{"file": "0000-0.png", "prompt": "x", "seed": 0}', "prompt_index"),
        ('{"file": "0001-0.png", "prompt_index": 0, "prompt": "a sks robot on a beach", "seed": 0}', "two pictures"),
    ],
)
def test_a_bad_row_is_named(tmp_path, runs, line, words):
    with (runs[0] / "images" / "images.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=words):
        build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")


def test_a_picture_that_is_listed_twice_counts_once(tmp_path, runs):
    index = runs[0] / "images" / "images.jsonl"
    index.write_text(index.read_text() * 2)
    study = build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")
    assert study["subjects"][0]["pairs"] == 6


def test_an_unfinished_run_and_a_broken_picture_are_refused(tmp_path, runs):
    unfinished = write_run(tmp_path / "c", SECRET_B, runs[2], prompts=3, size=64, status="running")
    with pytest.raises(RunError, match="not finished"):
        build_study(StudyConfig(pairs=((runs[0], unfinished),)), tmp_path / "study")
    (runs[1] / "images" / "0001-0.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(DataError, match=r"Cannot read the picture .*0001-0\.png"):
        build_study(StudyConfig(pairs=(runs[:2],)), tmp_path / "study")
    assert not list(tmp_path.glob("*study*"))


def test_one_pair_per_subject_and_one_order_of_methods(tmp_path, runs):
    a, b, _ = runs
    with pytest.raises(ConfigError, match="--subjects"):
        build_study(StudyConfig(pairs=((a, b), (a, b))), tmp_path / "study")
    with pytest.raises(ConfigError, match="different methods"):
        build_study(StudyConfig(pairs=((a, b), (b, a)), subjects=("x", "y")), tmp_path / "study")
    with pytest.raises(ConfigError, match="tell them apart"):
        build_study(StudyConfig(pairs=((a, a),)), tmp_path / "study")


def test_all_problems_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        StudyConfig(pairs=(), names=("one",), prompts=0, quality=101)
    for words in ("no pair", "1 names", "prompts is 0", "quality is 101"):
        assert words in str(caught.value)


def test_real_photographs_of_several_subjects(tmp_path, capsys):
    data, subjects = data_folder("dreambooth"), ("cat", "grey_sloth_plushie")
    line = ["rate", "build", "--out", str(tmp_path / "study"), "--quality", "80", "--longest", "256", "--prompts", "2"]
    for subject in subjects:
        runs = []
        for method in ("lora", "moslora"):
            run = write_run(tmp_path / f"{subject}-{method}", method, data / subject, subject, prompts=3, seeds=(0,))
            pictures = sorted((run / "images").glob("*.png"))
            for path, row in zip(sorted((data / subject).glob("*.jpg")), pictures, strict=False):
                with Image.open(path) as picture:  # photographs in place of generated pictures
                    picture.save(row, exif=picture.getexif())
            runs.append(str(run))
        line += ["--pair", *runs]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "cat: 2 pairs, 2 prompts, 5 photographs" in printed
    assert "moslora (B) against lora (A)" in printed
    assert max(row["width"] for row in Store(tmp_path / "study").rows("SELECT width FROM pictures")) <= 768
    study = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [subject["name"] for subject in study["subjects"]] == list(subjects)
    assert main(line) == 1
    assert "Nothing was changed" in capsys.readouterr().err
