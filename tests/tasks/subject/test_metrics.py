"""`moslora eval subject` on real photographs with small models, against the formula in float64."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, Dinov2Model, ViTModel

from moslora import runs
from moslora.cli import main
from moslora.errors import CheckpointError, ConfigError, DataError, RunError, UnsupportedError
from moslora.tasks.image_files import read_image
from moslora.tasks.subject.metrics.backbones import Backbone
from moslora.tasks.subject.metrics.config import SubjectEvalConfig
from moslora.tasks.subject.metrics.evaluate import evaluate
from moslora.tasks.subject.metrics.pictures import find_token, without_token
from moslora.tasks.subject.metrics.store import Store
from tests.helpers import data_folder
from tests.tasks.subject.models import photographs, save_clip, save_dinov2, save_run, save_vit


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"dino": save_vit(root / "vit"), "dinov2": save_dinov2(root / "dinov2"), "clip": save_clip(root / "clip")}


@pytest.fixture(scope="module")
def config(models):
    return SubjectEvalConfig(**{key: str(folder) for key, folder in models.items()}, resamples=200, batch_size=4)


def portraits(subject, size=(48, 40)):
    """Six pictures of three prompts and two seeds: the subject's own photographs, made small, some of them mirrored."""
    pictures = [ImageOps.fit(Image.open(path), size) for path in photographs(subject)]
    pictures += [ImageOps.mirror(picture) for picture in pictures]
    return dict(zip(itertools.product(range(3), range(2)), pictures, strict=False))


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
    """A run whose pictures are of its own subject, measured."""
    folder = save_run(tmp_path_factory.mktemp("runs") / "cat", "cat", portraits("cat"))
    return folder, evaluate([folder], config)[0]


def double_embeddings(models, metric, images):
    """By transformers alone, in float64."""
    if metric == "clip-i":
        model = CLIPModel.from_pretrained(models["clip"]).double().eval()
    else:
        kind = {"dino": ViTModel, "dinov2": Dinov2Model}[metric]
        model = kind.from_pretrained(models[metric]).double().eval()
    folder = models["clip" if metric == "clip-i" else metric]
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images, return_tensors="pt")
    pixels = pixels["pixel_values"].double()
    with torch.no_grad():
        if metric == "clip-i":
            return model.get_image_features(pixel_values=pixels).pooler_output.numpy()
        return model(pixel_values=pixels).last_hidden_state[:, 0].numpy()


def cosine(x, y):
    return float(np.dot(x, y) / np.sqrt(np.dot(x, x)) / np.sqrt(np.dot(y, y)))


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("metric", ["dino", "dinov2", "clip-i"])
def test_the_mean_is_that_of_all_pairs_of_a_real_and_a_generated_picture(run, models, metric):
    folder, scores = run
    generated = [Image.open(path).convert("RGB") for path in sorted((folder / "images").glob("*.png"))]
    real = [Image.open(path).convert("RGB") for path in photographs("cat")]
    ours, theirs = (double_embeddings(models, metric, images) for images in (generated, real))
    expected = [[cosine(x, y) for y in theirs] for x in ours]
    assert scores["metrics"][metric]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    rows = read_csv(folder / "eval" / "pairs.csv")
    assert len(rows) == 6 * 5
    assert [float(row[metric]) for row in rows] == pytest.approx(np.ravel(expected), abs=1e-5)
    for prompt in scores["prompts"]:
        own = expected[2 * prompt["prompt_index"] :][:2]
        assert prompt["metrics"][metric]["mean"] == pytest.approx(np.mean(own), abs=1e-6)


def test_clip_t_compares_each_picture_with_its_prompt_without_the_unique_token(run, models):
    folder, scores = run
    texts = [prompt["text"] for prompt in scores["prompts"]]
    assert texts == [f"a cat in place {index}" for index in range(3)]
    assert scores["unique_token"] == "sks"
    model = CLIPModel.from_pretrained(models["clip"]).double().eval()
    tokens = AutoTokenizer.from_pretrained(models["clip"])(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        words = model.get_text_features(**tokens).pooler_output.numpy()
    generated = [Image.open(path).convert("RGB") for path in sorted((folder / "images").glob("*.png"))]
    ours = double_embeddings(models, "clip-i", generated)
    expected = [cosine(ours[number], words[number // 2]) for number in range(6)]
    rows = read_csv(folder / "eval" / "pictures.csv")
    assert [float(row["clip-t"]) for row in rows] == pytest.approx(expected, abs=1e-5)
    assert scores["metrics"]["clip-t"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_subjects_are_on_average_more_like_themselves_than_like_each_other(tmp_path, config):
    """Whatever the model: |m - n|^2 >= 0 for the mean directions m and n of two sets of photographs."""
    names = ("cat", "grey_sloth_plushie")
    pictures = {name: {(n, 0): read_image(path) for n, path in enumerate(photographs(name))} for name in names}
    means = {}
    for shown, wanted in itertools.product(names, names):
        folder = save_run(tmp_path / f"{shown} as {wanted}", wanted, pictures[shown])
        scores = evaluate([folder], SubjectEvalConfig(**{**vars(config), "metrics": ("dino", "dinov2", "clip-i")}))
        means[shown, wanted] = {metric: each["mean"] for metric, each in scores[0]["metrics"].items()}
    for metric in ("dino", "dinov2", "clip-i"):
        own = sum(means[name, name][metric] for name in names) / 2
        across = [means[names][metric], means[names[::-1]][metric]]
        assert across[0] == pytest.approx(across[1], abs=1e-6)
        assert own > across[0] + 0.01, metric


def test_the_same_photograph_has_the_similarity_one(tmp_path, config):
    image = read_image(photographs("dog")[0])
    image.save(tmp_path / "photograph.png")
    folder = save_run(tmp_path / "run", "dog", {(0, 0): image})
    (tmp_path / "one").mkdir()
    (tmp_path / "photograph.png").rename(tmp_path / "one" / "photograph.png")
    changed = SubjectEvalConfig(**{**vars(config), "references": tmp_path / "one", "metrics": ("dino", "clip-i")})
    scores = evaluate([folder], changed)[0]
    assert [each["mean"] for each in scores["metrics"].values()] == pytest.approx([1, 1], abs=1e-6)
    assert all(each["interval"] is None for each in scores["metrics"].values()), "one pair has no interval"


def test_the_model_its_hash_and_its_image_processing_stand_beside_the_score(run, models):
    _, scores = run
    for metric, key in (("dino", "dino"), ("dinov2", "dinov2"), ("clip-i", "clip"), ("clip-t", "clip")):
        model = scores["metrics"][metric]["model"]
        assert (model["name"], model["commit"]) == (str(models[key]), None)
        assert model["sha256"] == runs.fingerprint(models[key])["sha256"]
    assert scores["metrics"]["dinov2"]["model"]["processing"]["crop_size"] == {"height": 28, "width": 28}
    assert scores["left_out"] == {"lpips": "no weights: --lpips FOLDER names them"}
    assert "lpips" not in scores["metrics"]
    assert scores["metrics"]["dino"]["interval_method"].endswith("200 draws over prompts, seeds, photographs")
    assert scores["metrics"]["clip-t"]["interval_method"].endswith("200 draws over prompts, seeds")


def test_a_repetition_computes_nothing_again_and_a_new_picture_only_itself(tmp_path, config, monkeypatch):
    pictures = portraits("cat")
    last = pictures.popitem()
    folder = save_run(tmp_path / "run", "cat", pictures)
    first = evaluate([folder], config)
    seen = []
    embed = Backbone.embed
    monkeypatch.setattr(Backbone, "embed", lambda self, paths: seen.extend(paths) or embed(self, paths))
    assert evaluate([folder], config) == first
    assert seen == []
    (index, seed), picture = last
    picture.save(folder / "images" / "new.png")
    row = {"file": "new.png", "prompt_index": index, "prompt": f"a sks cat in place {index}", "seed": seed}
    runs.append_rows(folder / "images" / "images.jsonl", [row])
    again = evaluate([folder], config)
    assert [path.name for path in seen] == ["new.png"] * 3
    assert again[0]["metrics"]["dino"]["pictures"] == 6


def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path, config, monkeypatch):
    folder = save_run(tmp_path / "run", "cat", portraits("cat"))
    embed, calls = Backbone.embed, []

    def stopping(self, paths):
        calls.append(len(paths))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(self, paths)

    monkeypatch.setattr(Backbone, "embed", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate([folder], config)
    assert not (folder / "eval" / "scores.json").exists()
    [path] = (folder / "eval" / "embeddings").glob("dino-*.jsonl")
    with path.open("a") as file:
        file.write('{"key": "torn')
    evaluate([folder], config)
    assert calls[:2] == [4, 4]
    assert sum(calls[2:]) == 7 + 11 + 11, "the first batch was not computed again"
    assert len(Store(path).missing(["torn"])) == 1


def test_the_unique_token_is_what_the_class_prompt_lacks():
    assert find_token({"prompt": "a photo of sks dog", "class_prompt": "a photo of a dog"}) == "sks"
    assert find_token({"prompt": "a photo of zwx qv dog", "class_prompt": "a photo of dog"}) == "zwx qv"
    assert find_token({"prompt": "a photo of sks dog", "class_prompt": ""}) == "sks"
    assert find_token({"prompt": "a zwx dog"}) == "zwx"
    assert find_token({"prompt": "a photo of zwx stuffed animal"}) == "zwx"
    for prompt, class_prompt in (("a photo of dog", "a photo of dog"), ("dog", ""), ("one sks dog two", "sks dog")):
        with pytest.raises(ConfigError, match="--unique-token"):
            find_token({"prompt": prompt, "class_prompt": class_prompt})
    assert without_token("a red sks dog, sks", "sks") == "a red dog,"
    assert without_token("a zwx qv dog of zwx", "zwx qv") == "a dog of zwx"
    assert without_token("a dog", "") == "a dog"


def test_what_cannot_be_measured_is_refused(tmp_path, config, models):
    folder = save_run(tmp_path / "run", "cat", portraits("cat"))
    for changes, error, message in (
        ({"metrics": ("lpips",)}, ConfigError, "lpips needs the weights of --lpips"),
        ({"dino": str(tmp_path / "none")}, ConfigError, "--dino"),
        ({"references": tmp_path}, DataError, "holds no picture"),
        ({"clip": str(models["dino"])}, UnsupportedError, "knows no texts"),
        ({"dino": str(models["clip"]), "metrics": ("dino",)}, None, ""),
    ):
        changed = SubjectEvalConfig(**{**vars(config), **changes})
        if error is None:
            evaluate([folder], changed)  # a CLIP's own vectors are as good as a class token
            continue
        with pytest.raises(error, match=message):
            evaluate([folder], changed)
    with pytest.raises(ConfigError, match="each once"):
        evaluate([folder, folder], config)
    (folder / "images" / "0001-1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 pictures are not there, such as 0001-1\.png"):
        evaluate([folder], config)
    record = json.loads((folder / "run.json").read_text())
    runs.write_json(folder / "run.json", record | {"status": "running"})
    with pytest.raises(RunError, match="not finished"):
        evaluate([folder], config)


def test_a_model_without_all_its_weights_is_refused(tmp_path, models):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(models["dino"], tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    lost = next(key for key in tensors if "layernorm" in key or "layer_norm" in key)
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no weights for \S*" + lost.split("layer.")[-1]):
        Backbone(str(broken), "dino").embed(photographs("cat")[:1])


def test_the_command_prints_means_and_what_was_left_out(run, models, capsys):
    folder, scores = run
    flags = [word for key, path in models.items() for word in (f"--{key}", str(path))]
    assert main(["eval", "subject", "--run", str(folder), *flags, "--resamples", "200"]) == 0
    printed = capsys.readouterr().out
    assert f"{scores['metrics']['dino']['mean']:.4f}" in printed
    assert "6 x 5" in printed
    assert "left out: lpips (no weights: --lpips FOLDER names them)" in printed


def test_several_runs_may_be_named_in_either_way_and_are_compared_with_the_first(tmp_path, models, capsys):
    folders = [
        str(save_run(tmp_path / name, "cat", portraits("cat", size)))
        for name, size in (("a", (48, 40)), ("b", (30, 40)))
    ]
    flags = ["--clip", str(models["clip"]), "--metrics", "clip-i", "--resamples", "100"]
    for named in (["--run", *folders], ["--run", folders[0], "--run", folders[1]]):
        assert main(["eval", "subject", *named, *flags]) == 0
        assert "CLIP-I: moslora (b) minus moslora (a) is" in capsys.readouterr().out
        [row] = runs.read_json(tmp_path / "a" / "eval" / "comparison.json")["comparisons"]
        assert (row["run"], row["against"], row["pairs"]) == (folders[1], folders[0], 6)
        means = [runs.read_json(tmp_path / name / "eval" / "scores.json")["metrics"]["clip-i"]["mean"] for name in "ab"]
        assert row["difference"] == pytest.approx(means[1] - means[0])


def test_pictures_of_the_base_model_have_a_place_of_their_own(tmp_path, config):
    folder = save_run(tmp_path / "run", "cat", portraits("cat"))
    (folder / "images").rename(folder / "images-base")
    [scores] = evaluate([folder], SubjectEvalConfig(**{**vars(config), "metrics": ("dino",), "base_only": True}))
    assert scores["method"] == "base model"
    assert (folder / "eval-base" / "scores.json").exists()
    assert not (folder / "eval").exists()
    (folder / "images-base").rename(folder / "images-live")
    evaluate([folder], SubjectEvalConfig(**{**vars(config), "metrics": ("dino",), "pictures": "images-live"}))
    assert (folder / "eval-live" / "scores.json").exists()


def test_what_generate_has_drawn_is_measured_and_reported(trained, config, tmp_path):
    import shutil

    from moslora.report.run_folders import write_runs_report
    from moslora.tasks.subject.config import SubjectGenerateConfig
    from moslora.tasks.subject.generate import generate

    folder = shutil.copytree(trained, tmp_path / "run")
    prompts = data_folder("dreambooth") / "prompts_and_classes.txt"
    generate(SubjectGenerateConfig(run=(folder,), prompts=f"{prompts}:live", limit=2, seeds=(0, 1), steps=2))
    [scores] = evaluate([folder], config)
    assert (scores["subject"], scores["unique_token"]) == ("dog", "sks")
    assert [row["text"] for row in scores["prompts"]] == ["a dog in the jungle", "a dog in the snow"]
    assert scores["metrics"]["dino"]["pictures"] == 4
    page = write_runs_report([folder], tmp_path / "report").read_text()
    assert f"{scores['metrics']['dino']['mean']:.3f}" in page
    assert 'alt="Generated pictures of moslora' in page or 'aria-label="Generated pictures of moslora' in page
