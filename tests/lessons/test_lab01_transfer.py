"""Lab 01: right answers that look unlike ours pass; what cannot learn or is spoilt besides does not, and is
named; and the drawing of a block says what a block has."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from torch import nn

from labkit.explore import drawings
from labkit.lessons import check, exercises
from labkit.networks.backbones import load_backbone
from labkit.training.fit import dice_ce

EXERCISES = exercises("01")


def freeze_by_name(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith("decoder")
    return model


def dice_by_einsum(logits, target):
    p = torch.softmax(logits, dim=1)
    t = torch.stack([(target == k).float() for k in range(logits.shape[1])], 1)
    overlap = torch.einsum("bkhw,bkhw->k", p, t)
    dice = (2 * overlap + 1) / (p.sum((0, 2, 3)) + t.sum((0, 2, 3)) + 1)
    return 1 - dice[1:].sum() / (len(dice) - 1)


def dice_label_by_label(logits, target):
    losses = []
    for k in range(1, logits.shape[1]):
        p, t = F.log_softmax(logits, 1).exp()[:, k], target == k
        losses.append(1 - (2 * p[t].sum() + 1) / (p.sum() + t.sum() + 1))
    return torch.stack(losses).mean()


def control_by_parameters(pretrained, untrained):
    control = copy.deepcopy(untrained)
    control.decoder.load_state_dict(pretrained.decoder.state_dict())
    for name, p in control.named_parameters():
        p.requires_grad = "decoder" in name
    return control


def control_by_a_new_part(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone = copy.deepcopy(untrained.backbone)
    freeze_by_name(control)
    return control


def tasks_by_counting(megabytes, shared, per_task):
    tasks = 0
    while 4 * (shared + (tasks + 1) * per_task) <= megabytes * 10**6:
        tasks += 1
    return tasks


@pytest.mark.parametrize(
    "name, answer",
    [
        ("freeze", freeze_by_name),
        ("soft_dice", dice_by_einsum),
        ("soft_dice", dice_label_by_label),
        ("frozen_random", control_by_parameters),
        ("frozen_random", control_by_a_new_part),
        ("tasks_that_fit", tasks_by_counting),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


def test_the_exercises_loss_is_the_part_of_labkits_loss_that_is_not_cross_entropy():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    soft_dice = EXERCISES["soft_dice"].reference
    expected = dice_ce(logits, target) - F.cross_entropy(logits, target)
    torch.testing.assert_close(soft_dice(logits, target), expected)


def without_a_graph(logits, target):
    return dice_by_einsum(logits.detach(), target)


def as_a_plain_number(logits, target):
    return dice_by_einsum(logits, target).item()


def test_a_loss_without_a_graph_does_not_pass_though_its_value_is_right():
    feedback = check("soft_dice", EXERCISES["soft_dice"], without_a_graph)
    assert not feedback and "gradient for the logits" in str(feedback)


def test_a_loss_that_is_a_plain_number_is_told_in_words_what_it_lacks():
    feedback = check("soft_dice", EXERCISES["soft_dice"], as_a_plain_number)
    assert not feedback and "must be a tensor, not a plain number" in str(feedback)


def freeze_and_scale(model):
    freeze_by_name(model)
    with torch.no_grad():
        model.backbone[0].weight.mul_(0.9)


def test_what_an_answer_does_to_the_model_besides_is_shown():
    feedback = check("freeze", EXERCISES["freeze"], freeze_and_scale)
    assert feedback.broken == "leaves model as it should be" and "model.backbone.0.weight" in str(feedback)


def control_that_is_no_network(pretrained, untrained):
    return control_by_parameters(pretrained, untrained).state_dict()


def control_that_freezes_what_it_was_given(pretrained, untrained):
    untrained.backbone.requires_grad_(False)
    return control_by_parameters(pretrained, untrained)


@pytest.mark.parametrize(
    "answer, words",
    [
        (control_that_is_no_network, "return the network, not a OrderedDict"),
        (control_that_freezes_what_it_was_given, "leaves its inputs as they are"),
    ],
)
def test_a_control_that_is_none_or_spoils_its_inputs_is_refused_in_words(answer, words):
    feedback = check("frozen_random", EXERCISES["frozen_random"], answer)
    assert not feedback and words in str(feedback)


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_drawing_of_a_block_has_the_shapes_of_the_labs_own_block():
    block = load_backbone("tiny", 1).blocks[0]
    words = words_of(drawings.transformer_block())
    q, k, v = block.attn.qkv.weight.chunk(3)
    matrices = {"q": q, "k": k, "v": v, "o": block.attn.proj.weight}
    matrices |= {"fc1": block.mlp.fc1.weight, "fc2": block.mlp.fc2.weight}
    for name, weight in matrices.items():
        assert f"{name}\n{tuple(weight.shape)}" in words
    assert any(f"{block.attn.num_heads} heads" in word for word in words)
    assert isinstance(block.mlp.act, nn.GELU) and "GELU" in words


def test_the_drawing_marks_the_matrices_that_it_is_told_and_knows_no_others():
    assert "changed" in words_of(drawings.transformer_block(marked=("q", "v")))
    assert "changed" not in words_of(drawings.transformer_block())
    with pytest.raises(ValueError, match=r"no matrix \['qkv'\]; mark some of q, k, v, o, fc1, fc2"):
        drawings.transformer_block(marked=("qkv",))
