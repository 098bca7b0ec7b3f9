import pytest
import torch

from models.layers import norm
from models.layers.equalized import Dense
from models.layers.norm import BatchNorm2d, ConditionalNorm, Dropout


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    torch.manual_seed(0)
    dropped = Dropout(0.4)(torch.ones(64, 32, 16, 16))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.002)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.6])


def test_dropped_places_follow_no_pattern() -> None:
    torch.manual_seed(0)
    masks = torch.stack([Dropout(0.4)(torch.ones(64 * 64, 16)) == 0 for _ in range(2)]).float()
    centred = masks - 0.4
    for shift in (1, 2, 16, 256):  # neighbours, the same place of the next row, farther ones
        flat = centred[0].flatten()
        assert (flat[shift:] * flat[:-shift]).mean().item() == pytest.approx(0, abs=0.005)
    assert (centred[0] * centred[1]).mean().item() == pytest.approx(0, abs=0.005)


def test_dropout_follows_the_default_source_of_the_cpu() -> None:
    x = torch.ones(4, 8)
    torch.manual_seed(3)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)


def test_two_ranks_drop_what_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(6, 3, 4, 4)
    torch.manual_seed(0)
    whole = Dropout(0.4)(x)
    parts = []
    for number in range(2):
        monkeypatch.setattr(norm, "rank", lambda number=number: number)
        torch.manual_seed(0)
        parts.append(Dropout(0.4)(x[3 * number : 3 * number + 3]))
    assert torch.equal(torch.cat(parts), whole)


def test_dropout_passes_everything_outside_training() -> None:
    x = torch.rand(4, 8)
    assert torch.equal(Dropout(0.4).eval()(x), x)


def test_conditional_norm_without_labels_is_a_plain_one() -> None:
    x = torch.randn(4, 8, 5, 5) * 3 + 1
    conditional, plain = ConditionalNorm(8, 0, momentum=0.5), BatchNorm2d(8, momentum=0.5)
    torch.testing.assert_close(conditional(x, torch.zeros(4, 0)), plain(x))
    torch.testing.assert_close(conditional.norm.running_mean, plain.running_mean)
    assert sum(weight.numel() for weight in conditional.parameters()) == 16


def test_momentum_is_the_weight_of_the_newest_batch() -> None:
    norm = BatchNorm2d(1, momentum=0.25)
    norm(torch.full((2, 1, 2, 2), 8.0))
    assert norm.running_mean.item() == pytest.approx(2.0)


@pytest.mark.filterwarnings("error")
def test_dense_layer_of_no_inputs_gives_its_bias_and_warns_of_nothing() -> None:
    assert Dense(0, 3)(torch.zeros(2, 0)).tolist() == [[0.0] * 3] * 2
    assert Dense(3, 0)(torch.zeros(2, 3)).shape == (2, 0)
