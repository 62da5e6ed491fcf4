"""LPIPS, from the published weights of AlexNet or VGG-16 and of its linear layers.

    d(x, y) = sum over layers l of mean over places of sum over channels c of w_lc (x_lc - y_lc)^2

x_l and y_l are the outputs of five ReLU layers, divided at each place by their length over the channels.

Source: arXiv:1801.03924, equation 1. Its w_l^2 are the weights that the authors' package stores, version 0.1.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from ....checkpoint.files import read_pickle, read_safetensors
from ....errors import CheckpointError, ConfigError, DataError

Net = Literal["alex", "vgg"]


class Conv(NamedTuple):
    """A convolution and its ReLU."""

    number: int  # in torchvision's `features`
    shape: tuple[int, int, int, int]  # of its weight
    stride: int = 1
    padding: int = 1
    pool: int = 0  # size of the maximum that is taken before it, at stride 2
    seen: bool = True  # whether LPIPS compares its output


NETS: dict[Net, tuple[Conv, ...]] = {
    "alex": (
        Conv(0, (64, 3, 11, 11), stride=4, padding=2),
        Conv(3, (192, 64, 5, 5), padding=2, pool=3),
        Conv(6, (384, 192, 3, 3), pool=3),
        Conv(8, (256, 384, 3, 3)),
        Conv(10, (256, 256, 3, 3)),
    ),
    "vgg": (
        Conv(0, (64, 3, 3, 3), seen=False),
        Conv(2, (64, 64, 3, 3)),
        Conv(5, (128, 64, 3, 3), pool=2, seen=False),
        Conv(7, (128, 128, 3, 3)),
        Conv(10, (256, 128, 3, 3), pool=2, seen=False),
        Conv(12, (256, 256, 3, 3), seen=False),
        Conv(14, (256, 256, 3, 3)),
        Conv(17, (512, 256, 3, 3), pool=2, seen=False),
        Conv(19, (512, 512, 3, 3), seen=False),
        Conv(21, (512, 512, 3, 3)),
        Conv(24, (512, 512, 3, 3), pool=2, seen=False),
        Conv(26, (512, 512, 3, 3), seen=False),
        Conv(28, (512, 512, 3, 3)),
    ),
}
TRUNKS: dict[Net, str] = {"alex": "alexnet*", "vgg": "vgg16*"}  # names of torchvision's files
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the authors, for pictures in [-1, 1]
EPSILON = 1e-10


class Lpips:
    """The distance between pictures of one size.

    Attributes:
        files: the two that the weights came from.
    """

    def __init__(self, folder: Path, net: Net = "alex", *, allow_pickle: bool = False) -> None:
        """Read the weights.

        Args:
            folder: with torchvision's file of the network and lpips' file of the linear layers, each as it is
                published or as .safetensors.
            net: which network.
            allow_pickle: whether .pth may be read.

        Raises:
            ConfigError: a file is missing, or is a pickle that was not allowed.
            CheckpointError: a tensor is missing or has another shape.
        """
        self.net = net
        self.files = [_find(folder, TRUNKS[net], allow_pickle), _find(folder, f"{net}.*", allow_pickle)]
        trunk, linear = (_read(path) for path in self.files)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._convs = []
        for conv in NETS[net]:
            weight = _take(self.files[0], trunk, f"features.{conv.number}.weight", conv.shape)
            bias = _take(self.files[0], trunk, f"features.{conv.number}.bias", conv.shape[:1])
            self._convs.append((weight.to(self.device), bias.to(self.device)))
        seen = [conv.shape[0] for conv in NETS[net] if conv.seen]
        self._linear = [
            _take(self.files[1], linear, f"lin{number}.model.1.weight", (1, channels, 1, 1)).flatten().to(self.device)
            for number, channels in enumerate(seen)
        ]

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """(pictures, 3, height, width) as the network sees them.

        Raises:
            DataError: the pictures have different sizes.
        """
        sizes = {image.size for image in images}
        if len(sizes) > 1:
            raise DataError(f"LPIPS compares pictures of one size; found {', '.join(f'{w}x{h}' for w, h in sizes)}.")
        stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images])).movedim(-1, 1)
        shift, scale = (torch.tensor(each)[:, None, None] for each in (SHIFT, SCALE))
        return (stacked.to(self._convs[0][0].dtype) / 127.5 - 1 - shift) / scale

    @torch.inference_mode()
    def distances(self, images: Sequence[Image]) -> dict[tuple[int, int], float]:
        """The distance of every pair of these pictures, by their numbers.

        Raises:
            DataError: the pictures have different sizes.
        """
        pairs = list(combinations(range(len(images)), 2))
        total = dict.fromkeys(pairs, 0.0)
        for features, weight in zip(self._features(self.pixels(images).to(self.device)), self._linear, strict=True):
            length = features.square().sum(1, keepdim=True).sqrt()
            directions = features / (length + EPSILON)
            for i, j in pairs:
                apart = (directions[i] - directions[j]).square().mean((1, 2))  # (channels,)
                total[i, j] += float(weight @ apart)
        return total

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """The five outputs that are compared, one after the other: (pictures, channels, height, width)."""
        for conv, (weight, bias) in zip(NETS[self.net], self._convs, strict=True):
            if conv.pool:
                x = F.max_pool2d(x, conv.pool, 2)
            x = F.conv2d(x, weight, bias, conv.stride, conv.padding).relu()
            if conv.seen:
                yield x


def _find(folder: Path, pattern: str, allow_pickle: bool) -> Path:
    found = sorted(path for path in folder.glob(pattern) if path.suffix in (".safetensors", ".pth", ".pt"))
    if not found:
        raise ConfigError(
            f"--lpips {folder}: found no {pattern} (.pth or .safetensors). Expected torchvision's file of the network "
            "(alexnet-owt-*.pth, vgg16-*.pth) and the package lpips' file of the linear layers (alex.pth, vgg.pth), "
            "which lies in its folder weights/v0.1."
        )
    path = next((path for path in found if path.suffix == ".safetensors"), found[0])
    if path.suffix != ".safetensors" and not allow_pickle:
        raise ConfigError(
            f"{path}: found a pickle, which may hold code, expected safetensors. If you trust where it comes from, "
            "allow it with --allow-pickle; only tensors are then read."
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    return read_safetensors(path)[0] if path.suffix == ".safetensors" else read_pickle(path)


def _take(path: Path, tensors: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> Tensor:
    if key not in tensors or tensors[key].shape != shape:
        found = f"shape {tuple(tensors[key].shape)}" if key in tensors else "no such tensor"
        raise CheckpointError(f"{path}: {key}: found {found}, expected shape {shape}: this is another network's file.")
    return tensors[key]
