from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from labkit.methods import LoRA
from labkit.networks.decoders.light import LightDecoder
from labkit.networks.segmenter import Segmenter
from labkit.scans.case import Case
from labkit.scans.slices import sample_slabs, to_volume
from labkit.training import quick
from labkit.training.evaluate import evaluate, mean_dice, predict
from labkit.training.fit import Recipe, backward, dice_ce, fit, parameter_groups, schedule, training_step
from labkit.training.precision import autocast
from labkit.tuning import delta, merge, tune

QUICK = Recipe(steps=6, batch_size=4, slices=2, check_every=2)


def patient(seed, names=None):
    """A bright box in noise, with a brighter core: labels 1 and 4."""
    rng = np.random.default_rng(seed)
    label = np.zeros((4, 32, 32), np.uint8)
    y, x = rng.integers(2, 14, 2)
    label[1:, y : y + 14, x : x + 14] = 1
    label[2:, y + 4 : y + 10, x + 4 : x + 10] = 4
    image = np.stack([5 + rng.normal(0, 0.3, label.shape) + label, 5 + rng.normal(0, 0.3, label.shape)])
    return Case(
        f"p{seed}",
        image.astype(np.float32),
        label,
        (2.0, 1.0, 1.0),
        ("a", "b"),
        names or {1: "box", 4: "core"},
        True,
    )


@pytest.fixture(scope="module")
def train():
    return [to_volume(patient(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def validation():
    return [to_volume(patient(seed)) for seed in (10, 11)]


DROPPING = LoRA(r=2, dropout=0.1)


def small(method=DROPPING):
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32,
        patch_size=8,
        in_chans=2,
        embed_dim=32,
        depth=4,
        num_heads=2,
        class_token=False,
        global_pool="",
        num_classes=0,
    )
    return tune(Segmenter(vit, LightDecoder([32] * 4, 3, channels=4, hidden=16)), method)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(delta(a).values(), delta(b).values(), strict=True))


def test_the_loss_falls(train):
    history = fit(small(), train, replace(QUICK, steps=40), progress=False)
    losses = [row["loss"] for row in history]
    assert [row["step"] for row in history] == list(range(1, 41))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_seed_decides_everything_whatever_was_drawn_before(train):
    a, b, c = small(), small(), small()
    fit(a, train, QUICK, progress=False)
    torch.rand(7)
    fit(b, train, QUICK, progress=False)
    fit(c, train, replace(QUICK, seed=1), progress=False)
    assert same(a, b) and not same(a, c)


def test_training_leaves_the_random_numbers_of_the_notebook_alone(train):
    model = small()
    before = torch.get_rng_state()
    fit(model, train, replace(QUICK, steps=1), progress=False)
    assert torch.equal(torch.get_rng_state(), before)


class PulledPlug(list):
    """Training volumes that stop the run at the n-th look at one."""

    left = (
        4 * QUICK.batch_size + 1
    )  # in the fifth step, of which the checkpoint after the fourth knows nothing

    def __getitem__(self, index):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_run_goes_on_to_the_same_bits(train, validation, tmp_path):
    whole, first, second = small(), small(), small()
    for p in delta(second).values():
        nn.init.normal_(p)  # another start, to be overwritten by the checkpoint
    history = fit(whole, train, QUICK, validation, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(first, PulledPlug(train), QUICK, validation, tmp_path / "run.pt", progress=False)
    assert not same(whole, first) and not same(whole, second)
    assert fit(second, train, QUICK, validation, tmp_path / "run.pt", progress=False) == history
    assert same(whole, second)


def test_a_finished_run_is_not_trained_again(train, tmp_path):
    model, again = small(), small()
    history = fit(model, train, QUICK, checkpoint=tmp_path / "run.pt", progress=False)
    assert fit(again, PulledPlug(train), QUICK, checkpoint=tmp_path / "run.pt", progress=False) == history
    assert same(model, again)


@pytest.mark.parametrize(
    "recipe, method, what",
    [
        (replace(QUICK, lr=1.0), LoRA(r=2), "recipe"),
        (QUICK, LoRA(r=3), "method and shapes"),
        (QUICK, LoRA(r=2, alpha=64.0, targets=("k", "v")), "method"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(train, tmp_path, recipe, method, what):
    fit(small(LoRA(r=2)), train, replace(QUICK, steps=6), checkpoint=tmp_path / "run.pt", progress=False)
    other = small(method)
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match=f"run.pt belongs to another {what}; delete it"):
        fit(other, train, recipe, checkpoint=tmp_path / "run.pt", progress=False)
    assert same(other, before)


def other_weights():
    model = small()
    model.backbone.blocks[0].mlp.fc1.weight.data += 0.1
    return model


def test_a_checkpoint_of_another_backbone_or_of_other_patients_is_refused(train, validation, tmp_path):
    path = tmp_path / "run.pt"
    fit(small(), train, QUICK, validation, path, progress=False)
    edited = [*train[:-1], replace(train[-1], target=train[-1].target.clone())]
    edited[-1].target[0, 0, 0] = 1  # one voxel
    for what, model, patients, judges in (
        ("backbone", other_weights(), train, validation),
        ("training patients", small(), train[:2], validation),
        ("training patients", small(), train[::-1], validation),
        ("training patients", small(), edited, validation),
        ("validation patients", small(), train, train[:2]),
    ):
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match=f"run.pt belongs to another {what}; delete it"):
            fit(model, patients, QUICK, judges, path, progress=False)
        assert same(model, before)


def test_a_checkpoint_from_before_they_named_backbone_and_patients_goes_on(train, tmp_path):
    path, model = tmp_path / "run.pt", small()
    history = fit(model, train, QUICK, checkpoint=path, progress=False)
    kept = torch.load(path)
    kept["belongs_to"] = {name: kept["belongs_to"][name] for name in ("recipe", "method", "shapes")}
    torch.save(kept, path)
    again = small()
    assert fit(again, PulledPlug(train), QUICK, checkpoint=path, progress=False) == history
    assert same(model, again)
    torch.save(kept | {"belongs_to": {}}, path)
    with pytest.raises(ValueError, match="another recipe and method and shapes"):
        fit(small(), train, QUICK, checkpoint=path, progress=False)


def test_a_checkpoint_of_an_equal_method_written_differently_goes_on(train, tmp_path):
    path = tmp_path / "run.pt"
    history = fit(small(LoRA(r=2, alpha=4)), train, QUICK, checkpoint=path, progress=False)
    again = small(LoRA(r=2, alpha=4.0, targets=("v", "q")))
    assert fit(again, PulledPlug(train), QUICK, checkpoint=path, progress=False) == history


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_in_a_sentence_and_is_never_kept(number, train, validation, tmp_path):
    ill = [replace(one, image=one.image.clone()) for one in train]
    for one in ill:
        one.image[:] = number
    model = small()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="diverged: in step 1 the loss is nan .* lower lr"):
        fit(model, ill, QUICK, validation, tmp_path / "run.pt", progress=False)
    assert same(model, before) and not (tmp_path / "run.pt").exists()


def test_a_gradient_that_is_not_finite_stops_the_last_step_too(train):
    model = small()
    before = copy.deepcopy(model)
    model.decoder.head.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(ValueError, match=r"in step 1 the loss is \d.*gradient (nan|inf)"):
        fit(model, train, replace(QUICK, steps=1), progress=False)
    assert same(model, before)


def test_parameters_that_a_last_step_made_infinite_are_no_result(train):
    model = small()

    def spoil(row):
        model.decoder.head.bias.data[0] = torch.inf

    with pytest.raises(ValueError, match="After step 1 .* diverged: decoder.head.bias holds .*; start anew"):
        fit(model, train, replace(QUICK, steps=1), progress=False, on_step=spoil)


def test_without_patients_there_is_no_training():
    with pytest.raises(ValueError, match="no patient to train on"):
        fit(small(), [], QUICK, progress=False)


def test_a_merged_model_is_not_trained(train):
    with pytest.raises(ValueError, match="is merged.*unmerge"):
        fit(merge(small()), train, QUICK, progress=False)


def test_a_checkpoint_may_be_named_by_a_text_and_the_model_is_left_in_evaluation_mode(train, tmp_path):
    model = small()
    fit(model, train, QUICK, checkpoint=str(tmp_path / "run.pt"), progress=False)
    assert (tmp_path / "run.pt").is_file() and not model.training


def test_quick_mode_takes_few_steps_of_few_slices_and_looks_at_two_patients(train, monkeypatch):
    monkeypatch.setenv("LABKIT_QUICK", "1")
    model, seen = small(), []
    watching = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    history = fit(model, train, replace(QUICK, steps=40, batch_size=16, slices=1), progress=False)
    assert len(history) == len(seen) == quick.STEPS and set(seen) == {quick.BATCH}
    watching.remove()
    assert {row["case"] for row in evaluate(model, train, hausdorff=False)} == {"p0", "p1"}


@pytest.mark.parametrize("slices", [1, 3, 4, 16])
def test_predict_reads_runs_of_the_length_it_is_told_and_covers_every_slice_once(slices):
    volume, seen = perfect({1: "box", 4: "core"}), []

    class Watching(Oracle):
        def forward(self, x):
            seen.extend([x.shape[1]] * len(x))
            return x

    assert np.array_equal(predict(Watching(), volume, slices), volume.case.label)
    assert set(seen) == {min(slices, 4)} and len(seen) == -(-4 // slices)


def test_a_method_may_ask_for_a_rate_of_its_own():
    class Eager(LoRA):
        def rates(self, model):
            return {p: 4.0 for name, p in model.named_parameters() if name.endswith(".B")}

    model = small(Eager(r=2))
    names = {id(p): name for name, p in model.named_parameters()}
    peaks = {names[id(p)]: g["peak"] for g in parameter_groups(model, Recipe(lr=0.1)) for p in g["params"]}
    assert {peaks[n] for n in peaks if n.endswith(".B")} == {0.4}
    assert {peaks[n] for n in peaks if n.endswith(".A")} == {0.1}


def test_the_best_delta_on_validation_is_kept(train, validation):
    model = small()
    fit(model, train, replace(QUICK, steps=40), progress=False)
    wild = Recipe(steps=8, batch_size=4, lr=3.0, head_lr=3.0, warmup=1.0, check_every=1, patience=99)
    found = [row["validation_dice"] for row in fit(model, train, wild, validation, progress=False)]
    assert found[-1] < max(found), "the test needs a training that gets worse"
    assert mean_dice(evaluate(model, validation, hausdorff=False)) == max(found)


def test_without_progress_on_validation_training_stops(train, validation):
    frozen = Recipe(steps=20, batch_size=2, lr=0.0, head_lr=0.0, check_every=2, patience=3)
    assert len(fit(small(), train, frozen, validation, progress=False)) == 2 * (1 + 3)


def test_only_the_delta_moves(train):
    model = small()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    fit(model, train, QUICK, progress=False)
    moved = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
    assert moved == delta(model).keys()


def test_head_and_method_have_their_own_rates_and_vectors_do_not_decay():
    model = small()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {
        (g["peak"], g["weight_decay"]): [names[id(p)] for p in g["params"]]
        for g in parameter_groups(model, Recipe(lr=0.1, head_lr=0.2, weight_decay=0.3))
    }
    assert sorted(sum(groups.values(), [])) == sorted(delta(model))
    assert groups.keys() == {(0.2, 0.3), (0.2, 0.0), (0.1, 0.3)}  # LoRA has no vectors
    assert all(name.endswith((".A", ".B")) for name in groups[0.1, 0.3])
    assert {"backbone.norm.weight", "decoder.head.bias"} <= set(groups[0.2, 0.0])
    assert "decoder.head.weight" in groups[0.2, 0.3]


def test_the_method_learns_at_the_rate_of_the_recipe_and_the_head_at_its_own(train):
    model = small()
    before = {name: p.clone() for name, p in delta(model).items()}
    fit(model, train, replace(QUICK, lr=0.0), progress=False)
    moved = {name for name, p in delta(model).items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.endswith((".A", ".B"))}


def test_the_loss_is_monais():
    from monai.losses import DiceCELoss

    logits, target = torch.randn(3, 4, 16, 16), torch.randint(4, (3, 16, 16))
    target[target == 3] = 0  # a label that the batch lacks
    theirs = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0
    )
    torch.testing.assert_close(dice_ce(logits, target), theirs(logits, target[:, None]))


class Oracle(nn.Module):
    """Finds each class in a channel of its own."""

    def forward(self, x):
        return x


def perfect(names):
    case = patient(0, names)
    image = np.stack([1.0 + (case.label == value) for value in (0, 1, 4)]).astype(np.float32)
    return to_volume(replace(case, image=image, channels=("0", "1", "4")))


def test_a_perfect_model_scores_1_in_the_values_of_the_labels():
    volume = perfect({1: "box", 4: "core"})
    assert np.array_equal(predict(Oracle(), volume), volume.case.label)
    found = [(row["case"], row["region"], row["dice"], row["hd95"]) for row in evaluate(Oracle(), [volume])]
    assert found == [("p0", "box", 1.0, 0.0), ("p0", "core", 1.0, 0.0)]
    short = evaluate(Oracle(), [volume], hausdorff=False)[0]
    assert short.keys() == {"case", "region", "dice", "false_mm3"}


def test_a_model_that_sees_nothing_scores_0():
    class Blind(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand_as(x)

    assert mean_dice(evaluate(Blind(), [perfect({1: "box", 4: "core"})])) == 0


def test_the_mean_is_over_patients_first():
    rows = [dict(region="a", dice=1.0), dict(region="a", dice=0.0), dict(region="b", dice=1.0)]
    assert mean_dice(rows) == 0.75


def test_one_part_is_to_the_last_bit_a_step_without_accumulation(train):
    recipe, models = replace(QUICK, steps=4), [small(), small()]
    optimizers = [torch.optim.AdamW(parameter_groups(m, recipe), betas=(0.9, 0.99)) for m in models]
    for step in range(4):
        loss = training_step(models[0], optimizers[0], train, recipe, step)
        torch.manual_seed(step)
        x, y = sample_slabs(train, 4, 2, models[1].size, torch.Generator().manual_seed(step), "plain")
        for group in optimizers[1].param_groups:
            group["lr"] = group["peak"] * schedule(step, recipe)
        models[1].train()
        with autocast():
            logits = models[1](x)
        plain = dice_ce(logits.flatten(0, 1).float(), y.flatten(0, 1))
        optimizers[1].zero_grad()
        plain.backward()
        nn.utils.clip_grad_norm_(delta(models[1]).values(), 1.0)
        optimizers[1].step()
        assert loss == plain.item()
    assert same(*models)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_have_the_gradient_of_the_whole_batch_where_the_loss_is_a_mean(train, monkeypatch, parts):
    monkeypatch.setattr("labkit.training.fit.autocast", lambda kind: torch.autocast(kind, enabled=False))
    x, y = sample_slabs(train, 4, 2, (32, 32), torch.Generator().manual_seed(0))
    whole, split = small(LoRA(r=2)).eval(), small(LoRA(r=2)).eval()

    def gradient(model, parts):
        found = backward(model, x, y, parts), {n: p.grad.clone() for n, p in delta(model).items()}
        model.zero_grad()
        return found

    losses = [gradient(whole, 1)[0], gradient(split, parts)[0]]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6), "the soft Dice of a batch is no mean"
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    monkeypatch.setattr("labkit.training.fit.dice_ce", nn.functional.cross_entropy)
    (loss, one), (sum_, many) = gradient(whole, 1), gradient(split, parts)
    assert loss == pytest.approx(sum_, rel=1e-5)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-6)


def test_a_recipe_that_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="no augmentation 'stronng'; choose one of plain, strong"):
        Recipe(augment="stronng")
    with pytest.raises(ValueError, match="accumulate=17 parts of 16 runs .* give 1 to 16"):
        Recipe(accumulate=17)


@pytest.mark.parametrize("name", ["steps", "slices", "batch_size", "check_every", "patience", "accumulate"])
@pytest.mark.parametrize("number", [0, -1, 2.5, "3", None])
def test_a_recipe_counts_in_whole_numbers_from_one(name, number):
    with pytest.raises(
        ValueError, match=rf"Recipe\({name}={number}\) can't be; give a whole number, at least 1"
    ):
        Recipe(**{name: number})


@pytest.mark.parametrize("name", ["lr", "head_lr", "weight_decay"])
@pytest.mark.parametrize("number", [-1, -1e-9, float("nan"), float("inf")])
def test_a_recipes_rates_are_numbers_from_zero(name, number):
    with pytest.raises(ValueError, match=rf"Recipe\({name}={number}\) can't be; give a number from 0"):
        Recipe(**{name: number})


@pytest.mark.parametrize(
    "wrong", [dict(warmup=2), dict(warmup=-0.1), dict(warmup=float("nan")), dict(seed=0.5)]
)
def test_a_recipes_warmup_is_a_share_and_its_seed_a_whole_number(wrong):
    with pytest.raises(ValueError, match=r"Recipe\((warmup|seed)=.* can't be"):
        Recipe(**wrong)


def test_a_recipe_takes_numpys_numbers():
    assert Recipe(steps=np.int64(3), lr=np.float32(0.5), seed=np.int32(1)).steps == 3


def test_trained_on_crops_a_patient_is_judged_in_windows(train):
    model, seen = small(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    large = [to_volume(replace(one.case, **enlarged(one.case))) for one in train]
    fit(model, large, Recipe(steps=2, batch_size=2, slices=2, crop=True), validation=large[:1])
    assert set(seen) == {tuple(model.size)}, "neither in training nor at validation a slice is scaled"
    assert tuple(large[0].image.shape[-2:]) != tuple(model.size)


def enlarged(case):
    return dict(image=np.repeat(case.image, 2, -1), label=np.repeat(case.label, 2, -1))
