import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.efficient import meddanet
from labkit.efficient.counting import macs
from labkit.efficient.meddanet import (
    CROP,
    SKIP,
    WHOLE,
    MedDANet,
    cost,
    cut,
    decision_loss,
    dice_loss,
    hard_choice,
    paste,
)
from labkit.efficient.meddanet_unet import BitSelector, Conv, UNet, edges, head, other_macs, stage_macs
from labkit.efficient.precision import fake_quantize
from labkit.tuning import numel

# the cost table of the released code, in millions of MACs: four stages, and the rest
WHOLE_TABLE = (94.371, 169.87, 169.868, 314.644), 319.247
WINDOW_TABLE = (53.085, 95.551, 95.553, 169.871), 185.94


@pytest.fixture(scope="module")
def model():
    return MedDANet(c=4, n=32, m=16).eval()


def offsets(rows_and_columns, n, m):
    return torch.tensor(rows_and_columns, dtype=torch.float) / (n - m)


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_of_the_paper():
    model = MedDANet(c=16)
    selectors = numel(model.unet.selectors.parameters())
    assert [numel(s.parameters()) for s in model.unet.selectors] == [50, 82, 146, 274]
    assert numel(model.unet.parameters()) - selectors == 1_604_880
    assert numel(model.crop_head.parameters()) == numel(model.whole_head.parameters()) == 4_772
    assert numel(model.decision.parameters()) == 65_708
    assert numel(model.position.parameters()) == 65_452
    assert numel(model.parameters()) == 1_746_136


@pytest.mark.parametrize("c", [4, 8])
def test_sizes_of_every_width(c):
    unet = UNet(c, (8, 16))
    assert numel(unet.selectors.parameters()) == 30 * c + 72
    assert numel(unet.parameters()) == 6252 * c * c + 273 * c + 30 * c + 72
    assert numel(head(c).parameters()) == 18 * c * c + 10 * c + 4


class Whole(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.unet, self.head = UNet(c, (8, 16)), head(c)

    def forward(self, x):
        return self.head(self.unet(x)[0])


@pytest.mark.parametrize(
    ("c", "n", "expected"), [(16, 128, 1_017_118_720), (16, 96, 572_129_280), (8, 96, 144_506_880)]
)
def test_multiply_adds_by_closed_form_and_by_counting(c, n, expected):
    assert sum(stage_macs(c, n)) + other_macs(c, n, n) == expected
    assert macs(Whole(c), 1, 4, n, n) == expected


def test_multiply_adds_of_each_stage():
    """The released table agrees, but for stage 4 of the whole slice."""
    for n, table in ((128, WHOLE_TABLE), (96, WINDOW_TABLE)):
        ours = [m / 1e6 for m in stage_macs(16, n)]
        agree = [o == pytest.approx(t, abs=0.005) for o, t in zip(ours, table[0], strict=True)]
        assert agree == [True, True, True, n == 96]
    assert stage_macs(16, 128)[3] / 1e6 == pytest.approx(301.990, abs=0.001)


def test_multiply_adds_of_the_policy_networks():
    assert [meddanet.policy_macs(3, n) for n in (128, 96)] == [4_082_688, 2_296_848]


def test_costs_of_the_released_table():
    bits = torch.tensor([[8.0] * 4, [16.0] * 4, [32.0] * 4])
    torch.testing.assert_close(
        cost(*WHOLE_TABLE, bits), torch.tensor([506.435, 693.624, 1068.0]), rtol=0, atol=0.01
    )
    torch.testing.assert_close(
        cost(*WINDOW_TABLE, bits), torch.tensor([289.455, 392.97, 600.0]), rtol=0, atol=0.01
    )


def test_a_window_of_the_laptops_size_costs_half():
    model = MedDANet()
    bits = torch.full((1, 4), 32.0)
    assert (cost(*model.crop_macs, bits) / model.full).item() == pytest.approx(0.4864, abs=1e-4)
    assert numel(model.parameters()) == 536_256
    assert model.policy_cost == pytest.approx([0.016, 0.016], abs=5e-4)


# --- windows --------------------------------------------------------------------------------------


def test_a_window_is_cut_at_its_row_and_column():
    x, corners = torch.randn(3, 2, 32, 32), [(5, 20), (0, 0), (13, 2)]
    windows = cut(x, offsets(corners, 32, 8), 8)
    for one, window, (i, j) in zip(x, windows, corners, strict=True):
        torch.testing.assert_close(window, one[:, i : i + 8, j : j + 8], rtol=0, atol=2e-5)


def test_a_window_is_pasted_where_it_was_cut_and_nothing_beside_it():
    x, corners = torch.randn(4, 2, 32, 32), [(5, 20), (20, 5), (0, 24), (24, 0)]
    a = offsets(corners, 32, 8)
    back = paste(cut(x, a, 8), a, 32)
    for one, canvas, (i, j) in zip(x, back, corners, strict=True):
        expected = torch.zeros_like(one)
        expected[:, i : i + 8, j : j + 8] = one[:, i : i + 8, j : j + 8]
        torch.testing.assert_close(canvas, expected, rtol=0, atol=2e-5)


def test_the_place_of_a_window_gets_a_gradient_through_cut_and_paste():
    a = torch.tensor([[0.3, 0.7]], requires_grad=True)
    window = cut(torch.randn(1, 1, 32, 32), a, 8)
    assert torch.autograd.grad(window.square().sum(), a, retain_graph=True)[0].abs().min() > 0
    canvas = paste(window.detach(), a, 32)
    assert torch.autograd.grad((canvas * torch.randn(32, 32)).sum(), a)[0].abs().min() > 0


# --- choices --------------------------------------------------------------------------------------


def test_a_choice_is_one_hot_with_the_gradient_of_the_softmax():
    logits, g = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    u = hard_choice(logits)
    torch.testing.assert_close(u, F.one_hot(logits.argmax(1), 3).float())
    expected = torch.autograd.grad((logits.softmax(1) * g).sum(), logits)[0]
    torch.testing.assert_close(torch.autograd.grad((u * g).sum(), logits)[0], expected)


def test_with_noise_choices_are_drawn_with_the_probabilities_and_repeatably():
    logits = torch.tensor([[2.0, 0.0, -1.0]]).repeat(20_000, 1)
    draw = lambda: hard_choice(logits, torch.Generator().manual_seed(3))  # noqa: E731
    torch.testing.assert_close(draw().mean(0), logits[0].softmax(0), rtol=0, atol=0.015)
    assert torch.equal(draw(), draw())


def test_a_new_selector_chooses_the_second_number_of_bits():
    x = torch.randn(5, 4, 8, 8)
    selector = BitSelector(4, (8, 16))
    assert selector(edges(x), x).tolist() == [16] * 5
    p = selector.linear(torch.randn(1, 12)).softmax(1)
    torch.testing.assert_close(p[0], torch.tensor([0.2689, 0.7311]), rtol=0, atol=1e-4)


def test_the_edges_of_a_slope_are_its_slopes():
    row, column = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    x = torch.stack([2 * column, 3 * row, torch.ones(9, 9), row - column])[None]
    assert edges(x).tolist() == [[2, 0, 0, 3, 0, 0, 1, 1]]


def test_every_slice_is_convolved_in_its_own_bits():
    conv, x = Conv(3, 5, stride=2), torch.randn(3, 3, 8, 8)
    y = conv(x, torch.tensor([2.0, 8, 4]))
    for one, slice_, bits in zip(y, x, (2, 8, 4), strict=True):
        expected = F.conv2d(slice_[None], fake_quantize(conv.weight, bits), None, 2, 1)[0]
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


def test_weights_and_bits_learn_through_the_rounding():
    conv, bits = Conv(3, 5), torch.tensor([4.0, 8.0], requires_grad=True)
    conv(torch.randn(2, 3, 8, 8), bits).square().sum().backward()
    assert conv.weight.grad.abs().min() > 0 and bits.grad.abs().min() > 0


def test_selectors_learn_from_the_cost():
    unet, x = UNet(4, (8, 16)), torch.randn(2, 4, 32, 32)
    _, bits = unet(x, adaptive=True)
    assert bits.tolist() == [[16] * 4] * 2
    cost(stage_macs(4, 32), 0, bits).sum().backward()
    for selector in unet.selectors:
        before = selector.linear.bias.grad
        assert before[0] < 0 < before[1]  # towards the first, cheaper number


@pytest.mark.parametrize("bits", [(1, 8), (8, 32)])
def test_bits_that_can_not_be_are_refused(bits):
    with pytest.raises(ValueError, match="2 to 16 bits"):
        MedDANet(c=4, n=32, m=16, bits=bits)


@pytest.mark.parametrize(("n", "m"), [(30, 16), (32, 12), (32, 40), (32, 0)])
def test_sizes_that_can_not_be_halved_three_times_are_refused(n, m):
    with pytest.raises(ValueError, match="divide by 8"):
        MedDANet(c=4, n=n, m=m)


# --- the whole ------------------------------------------------------------------------------------


def deciding(model, choices, monkeypatch):
    logits = F.one_hot(torch.tensor(choices), 3).float()
    monkeypatch.setattr(model.decision, "forward", lambda x: logits[: len(x)])


def test_only_what_is_chosen_is_computed_and_it_is_what_would_have_been(model, monkeypatch):
    x = torch.randn(5, 4, 32, 32)
    deciding(model, [2, 0, 1, 1, 0], monkeypatch)
    y, choices, costs = model(x)
    assert choices.tolist() == [2, 0, 1, 1, 0]
    all_y, all_costs = meddanet.outcomes(model, x)
    rows = torch.arange(5)
    torch.testing.assert_close(y, all_y[rows, choices], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(costs, all_costs[rows, choices])
    deciding(model, [0] * 5, monkeypatch)
    monkeypatch.setattr(model.unet, "forward", None)
    y, _, costs = model(x)
    assert (y[:, 0] == 1).all() and (y[:, 1:] == 0).all()
    assert costs.tolist() == pytest.approx([model.policy_cost[0]] * 5)


def test_evaluation_is_deterministic_and_training_drops_out(model):
    x = torch.randn(2, 4, 32, 32)
    for adaptive in (False, True):
        assert torch.equal(model.whole(x, adaptive)[0], model.whole(x, adaptive)[0])
        assert torch.equal(model.crop(x, adaptive)[0], model.crop(x, adaptive)[0])
    assert all(torch.equal(a, b) for a, b in zip(model(x), model(x), strict=True))
    training = MedDANet(c=4, n=32, m=16)
    assert not torch.equal(training.whole(x)[0], training.whole(x)[0])


def test_probabilities_sum_to_one_and_start_near_background(model):
    for run in (model.skip, model.crop, model.whole):
        y = run(torch.randn(2, 4, 32, 32))[0].detach()
        torch.testing.assert_close(y.sum(1), torch.ones(2, 32, 32))
        assert y[:, 0].median() > 0.5


def test_same_seed_same_bits_and_the_callers_numbers_go_on():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = MedDANet(c=4, n=32, m=16).state_dict()
    assert torch.equal(torch.rand(3), expected)
    two, other = (MedDANet(c=4, n=32, m=16, seed=s).state_dict() for s in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["unet.stem.weight"], other["unet.stem.weight"])


def test_policy_networks_start_as_the_authors(model):
    stem, last = model.decision[0][0].weight, model.decision[-4][0].weight
    assert stem.std().item() == pytest.approx(0.01, rel=0.15)
    assert last.std().item() == pytest.approx(1 / 96, rel=0.05)


def test_dice_loss_by_hand():
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    labels[0, 0] = torch.tensor([1, 2])
    y = F.one_hot(labels, 4).movedim(-1, 1).float()
    assert dice_loss(y, labels).item() == pytest.approx(1, abs=1e-4)  # label 3 is nowhere: 1 - 0
    y = torch.full((1, 4, 2, 2), 0.25)
    assert dice_loss(y, labels).item() == pytest.approx(1 - 0.5 / 2 + 1 - 0.5 / 2 + 1, abs=1e-4)


def test_a_price_does_not_depend_on_the_batch_size():
    x, labels = torch.randn(2, 4, 8, 8), torch.randint(4, (2, 8, 8))
    y, costs, choice = torch.stack([x.softmax(1)] * 3, 1), torch.rand(2, 3), hard_choice(torch.randn(2, 3))
    once = decision_loss(choice, y, costs, labels, price=7)
    twice = decision_loss(*(torch.cat([t, t]) for t in (choice, y, costs, labels)), price=7)
    torch.testing.assert_close(once, twice)


def test_phases_train_what_they_should():
    model = MedDANet(c=4, n=32, m=16)
    x, labels = torch.randn(2, 4, 32, 32), torch.randint(4, (2, 32, 32))
    learns = lambda part: any(p.grad is not None and p.grad.any() for p in part.parameters())  # noqa: E731
    meddanet.network_loss(model, x, labels).backward()
    parts = (model.unet.stages, model.crop_head, model.whole_head, model.position)
    assert all(map(learns, parts)) and not learns(model.unet.selectors) and not learns(model.decision)
    meddanet.network_loss(model, x, labels, price=0.1).backward()
    assert learns(model.unet.selectors)
    model.zero_grad()
    kept = meddanet.outcomes(model.eval(), x)
    decision_loss(hard_choice(model.decision(x)), *kept, labels, price=0.1).backward()
    assert learns(model.decision) and not any(map(learns, (model.unet, *parts[1:])))


def test_learns_one_batch():
    """A bright square is the tumour; both ways of looking learn it, once the weights stop being new."""
    model = MedDANet(c=4, n=32, m=16)
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    labels[:, 12:19, 13:20] = 1
    x = torch.randn(2, 4, 32, 32) / 4 + labels[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        losses.append(meddanet.network_loss(model, x, labels, price=0.1))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.3


def test_a_dear_price_teaches_to_skip_and_a_free_one_to_look():
    """Labels that only the whole slice shows: the price decides."""
    labels = torch.ones(4, 8, 8, dtype=torch.long)
    seen = F.one_hot(labels, 4).movedim(-1, 1).float()
    blind = F.one_hot(0 * labels, 4).movedim(-1, 1).float()
    y, costs = torch.stack([blind, blind, seen], 1), torch.tensor([[0.0, 0.5, 1.0]]).repeat(4, 1)
    for price, choice in ((0.0, 2), (5.0, 0)):
        logits = torch.zeros(4, 3, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.5)
        for _ in range(6):
            optimizer.zero_grad()
            decision_loss(hard_choice(logits), y, costs, labels, price).backward()
            optimizer.step()
        assert (hard_choice(logits).argmax(1) == choice).all()


def test_the_names_of_the_choices_are_their_places(model):
    x = torch.randn(1, 4, 32, 32)
    y, costs = meddanet.outcomes(model, x)
    for which, (one, its_cost) in {
        SKIP: model.skip(x),
        CROP: model.crop(x, adaptive=True),
        WHOLE: model.whole(x, adaptive=True),
    }.items():
        torch.testing.assert_close(y[:, which], one.detach())
        torch.testing.assert_close(costs[:, which], its_cost.detach() + model.policy_cost[0])
