"""A model with a layer of each kind that can be adapted. Knows nothing of moslora: stock PEFT loads it too."""

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """Three linear layers in one parameter (experts, d_in, d_out)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 8, 10) * 0.3)
        self.down = nn.Parameter(torch.randn(3, 10, 8) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bi,eio->beo", x, self.up).tanh()
        return torch.einsum("beo,eoi->bi", hidden, self.down)


class Toy(nn.Module):
    """Embedding, convolutions (one of two groups), experts, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.grouped = nn.Conv2d(6, 8, 1, groups=2)
        self.first = nn.Linear(32, 8)
        self.experts = Experts()
        self.second = nn.Linear(8, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, words: Tensor) -> Tensor:
        image = self.embed(words).unflatten(-1, (4, 4)).transpose(1, 2)  # (batch, 4, words, 4)
        image = self.grouped(self.conv(image).tanh()).tanh()  # (batch, 8, words, 4)
        hidden = self.first(image.mean(2).flatten(1)).tanh()
        hidden = hidden + self.experts(hidden)
        return self.head(self.second(hidden).tanh())


def toy(seed: int = 0) -> Toy:
    """The same weights for the same seed, in any process."""
    torch.manual_seed(seed)
    return Toy().eval()


def words() -> Tensor:
    """Inputs."""
    return torch.randint(0, 20, (6, 5), generator=torch.Generator().manual_seed(0))
