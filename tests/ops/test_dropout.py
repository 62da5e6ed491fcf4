import pytest
import torch

from moslora.ops import dropout


def test_the_seed_follows_torchs_generator():
    torch.manual_seed(5)
    first = [dropout.draw_seed(torch.device("cpu")) for _ in range(3)]
    torch.manual_seed(5)
    assert first == [dropout.draw_seed(torch.device("cpu")) for _ in range(3)]
    assert len(set(first)) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.05, 0.5])
def test_the_share_and_the_expectation_are_right(dtype, p):
    x = torch.ones(400, 1000, dtype=dtype)
    dropped = dropout.drop(x, p, seed=11)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    kept = dropped.double().mean().item()
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(kept - (1 - p)) < 4 * deviation
    assert abs(kept * dropout.keep_scale(p) - 1) < 4 * deviation / (1 - p)


def test_masks_of_all_dtypes_are_one_mask():
    masks = [dropout.drop(torch.ones(33, 5, dtype=dtype), 0.3, seed=1) for dtype in (torch.bfloat16, torch.float64)]
    assert torch.equal(masks[0].double(), masks[1])


def test_masks_are_independent():
    """The correlation of two masks is that of chance, along rows, along columns and between seeds."""
    shape = (512, 512)
    one, two = (dropout.drop(torch.ones(shape), 0.3, seed) for seed in (1, 2))
    for left, right in ((one, two), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
        correlation = torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]
        assert abs(correlation) < 4 / left.numel() ** 0.5


def test_what_is_kept_is_unchanged_to_the_bit():
    x = torch.randn(64, 65, generator=torch.Generator().manual_seed(0))
    dropped = dropout.drop(x, 0.2, seed=4)
    kept = dropped != 0
    assert torch.equal(dropped[kept], x[kept])
    assert torch.equal(dropout.drop(x.t(), 0.2, seed=4), dropout.drop(x.t().contiguous(), 0.2, seed=4))
