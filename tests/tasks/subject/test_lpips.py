"""LPIPS from files with the published names and shapes, against the paper's formula in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import ImageOps
from safetensors.torch import save_file
from torch import nn

from moslora.errors import CheckpointError, ConfigError, DataError
from moslora.tasks.image_files import read_image
from moslora.tasks.subject.metrics.config import SubjectEvalConfig
from moslora.tasks.subject.metrics.evaluate import evaluate
from moslora.tasks.subject.metrics.lpips import Lpips
from tests.tasks.subject.models import photographs, save_run


def torchvision_features(net):
    """The `features` of torchvision's AlexNet or VGG-16, layer by layer, and the numbers of the ReLUs LPIPS reads."""
    if net == "alex":
        layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]
        return nn.Sequential(*layers), (1, 4, 7, 9, 11)
    layers, channels = [], 3
    for size in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if size == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
            channels = size
    return nn.Sequential(*layers), (3, 8, 15, 22, 29)


FILES = {
    "alex": ("alexnet-owt-7be5be79", (64, 192, 384, 256, 256)),
    "vgg": ("vgg16-397923af", (64, 128, 256, 512, 512)),
}


def save_weights(folder, net, suffix):
    """Random weights in files that are named and laid out as the published ones."""
    torch.manual_seed(0)
    features, seen = torchvision_features(net)
    name, channels = FILES[net]
    trunk = {f"features.{key}": value for key, value in features.state_dict().items()}
    trunk |= {"classifier.1.weight": torch.zeros(3, 3)}
    linear = {f"lin{number}.model.1.weight": torch.rand(1, size, 1, 1) for number, size in enumerate(channels)}
    folder.mkdir()
    for stem, tensors in ((name, trunk), (net, linear)):
        (save_file if suffix == ".safetensors" else torch.save)(tensors, folder / f"{stem}{suffix}")
    return features.double(), seen, [linear[f"lin{number}.model.1.weight"].flatten().numpy() for number in range(5)]


def by_the_formula(images, features, seen, weights):
    """Equation 1, in float64, with a loop over the places."""
    outputs = []
    for image in images:
        x = torch.tensor(np.asarray(image) / 255 * 2 - 1, dtype=torch.float64).permute(2, 0, 1)[None]
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        found = []
        for number, layer in enumerate(features):
            x = layer(x)
            if number in seen:
                found.append(x[0].detach().numpy())
        outputs.append(found)
    total = 0.0
    for first, second, w in zip(*outputs, weights, strict=True):
        places = []
        for row in range(first.shape[1]):
            for column in range(first.shape[2]):
                x, y = first[:, row, column], second[:, row, column]
                gap = x / (np.linalg.norm(x) + 1e-10) - y / (np.linalg.norm(y) + 1e-10)
                places.append((w * gap**2).sum())
        total += np.mean(places)
    return total


def cats(count, size=(70, 66)):
    return [ImageOps.fit(read_image(path), size) for path in photographs("cat")[:count]]


@pytest.mark.parametrize(("net", "suffix"), [("alex", ".pth"), ("alex", ".safetensors"), ("vgg", ".pth")])
def test_distances_are_those_of_the_formula(tmp_path, net, suffix):
    truth = save_weights(tmp_path / "weights", net, suffix)
    images = cats(3)
    found = Lpips(tmp_path / "weights", net, allow_pickle=True).distances(images)
    assert found.keys() == {(0, 1), (0, 2), (1, 2)}
    for (i, j), distance in found.items():
        assert distance == pytest.approx(by_the_formula([images[i], images[j]], *truth), rel=1e-4)
    assert min(found.values()) > 1e-4


def test_a_picture_has_no_distance_from_itself(tmp_path):
    save_weights(tmp_path / "weights", "alex", ".safetensors")
    [cat] = cats(1)
    assert Lpips(tmp_path / "weights").distances([cat, cat]) == {(0, 1): 0.0}


def test_files_that_are_not_those_are_refused(tmp_path):
    folder = tmp_path / "weights"
    with pytest.raises(ConfigError, match=r"found no alexnet\*"):
        Lpips(tmp_path)
    save_weights(folder, "alex", ".pth")
    with pytest.raises(ConfigError, match=r"alexnet-owt-7be5be79.pth: found a pickle.*--allow-pickle"):
        Lpips(folder)
    torch.save({"lin0.model.1.weight": torch.zeros(1, 63, 1, 1)}, folder / "alex.pth")
    with pytest.raises(
        CheckpointError, match=r"lin0.model.1.weight: found shape \(1, 63, 1, 1\), expected shape \(1, 64"
    ):
        Lpips(folder, allow_pickle=True)
    torch.save({}, folder / "alex.pth")
    with pytest.raises(CheckpointError, match=r"lin0.model.1.weight: found no such tensor"):
        Lpips(folder, allow_pickle=True)
    with pytest.raises(ConfigError, match=r"found no vgg16\*"):
        Lpips(folder, "vgg")
    save_weights(tmp_path / "good", "alex", ".safetensors")
    small, large = cats(1), cats(1, (80, 66))
    with pytest.raises(DataError, match="pictures of one size; found"):
        Lpips(tmp_path / "good").distances(small + large)


def test_the_diversity_of_a_run_is_the_mean_over_pairs_of_one_prompt(tmp_path, monkeypatch):
    save_weights(tmp_path / "weights", "alex", ".safetensors")
    images = cats(5)
    pictures = {(0, seed): images[seed] for seed in range(3)} | {
        (1, 0): images[3],
        (1, 1): images[4],
        (2, 0): images[0],
    }
    folder = save_run(tmp_path / "run", "cat", pictures)
    config = SubjectEvalConfig(metrics=("lpips",), lpips=tmp_path / "weights", resamples=100)
    scores = evaluate([folder], config)[0]
    tool = Lpips(tmp_path / "weights")
    first, second = tool.distances(images[:3]), tool.distances(images[3:])
    assert scores["metrics"]["lpips"]["mean"] == pytest.approx(np.mean([*first.values(), *second.values()]))
    assert scores["metrics"]["lpips"]["pairs"] == 4
    assert scores["metrics"]["lpips"]["interval_method"].endswith("over prompts")
    assert [row["metrics"].get("lpips", {}).get("mean") for row in scores["prompts"]] == [
        pytest.approx(np.mean(list(first.values()))),
        pytest.approx(second[0, 1]),
        None,
    ]
    assert set(scores["metrics"]["lpips"]["model"]["files"]) == {"alexnet-owt-7be5be79.safetensors", "alex.safetensors"}
    assert scores["left_out"]["dino"] == "not asked for"
    monkeypatch.setattr(Lpips, "distances", None)
    assert evaluate([folder], config) == [scores], "distances come from the disk"
    alone = save_run(tmp_path / "alone", "cat", {(0, 0): images[0]})
    scores = evaluate([alone], dataclasses.replace(config))[0]
    assert scores["left_out"]["lpips"] == "no prompt has two pictures"
