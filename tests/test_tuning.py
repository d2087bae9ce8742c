import pytest
import torch

from labkit.methods import Full, Head, LoRA
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, delta, load, save, tune


def test_tuning_freezes_all_but_the_method_and_the_head(fresh):
    model = tune(fresh(), LoRA())
    for name, p in model.named_parameters():
        learns = name.startswith(("decoder.", "backbone.norm.")) or name.endswith((".A", ".B"))
        assert p.requires_grad == learns, name
    assert model.tuned_by == LoRA()


def test_counts_of_full_and_head_add_up(fresh):
    full, head = count(tune(fresh(), Full())), count(tune(fresh(), Head()))
    assert full.tuned == full.pretrained == head.pretrained and full.inserted == head.inserted == 0
    assert 0 < head.tuned < 0.1 * head.pretrained


def test_a_shared_parameter_stands_once_in_the_delta(fresh):
    model = fresh()
    model.decoder.again = model.decoder.head
    assert delta(tune(model, Head())).keys() == delta(tune(fresh(), Head())).keys()


def test_a_delta_is_small_and_holds_nothing_pretrained(fresh, tmp_path):
    model = tune(fresh(), LoRA(r=2))
    save(model, tmp_path / "delta.safetensors")
    assert (tmp_path / "delta.safetensors").stat().st_size < 4.1 * count(model).tuned + 20_000


def unchanged(model, path, match):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load(model, path)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_a_delta_of_another_rank_is_refused_and_both_are_named(fresh, tmp_path):
    save(tune(fresh(), LoRA(r=2)), tmp_path / "delta")
    unchanged(tune(fresh(), LoRA(r=4)), tmp_path / "delta", '"r": 2.*tuned by.*"r": 4')


def test_a_delta_for_other_classes_is_refused_before_anything_changes(fresh, tmp_path):
    save(tune(segmenter(classes=2), LoRA()), tmp_path / "delta")
    unchanged(tune(fresh(), LoRA()), tmp_path / "delta", "does not fit this model: decoder.head")


def test_a_file_that_holds_no_tensors_is_refused(fresh, tmp_path):
    (tmp_path / "delta").write_bytes(b"nothing of the kind")
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "no readable safetensors file")


def test_a_cut_off_file_is_refused(fresh, tmp_path):
    save(tune(fresh(), Head()), tmp_path / "delta")
    (tmp_path / "delta").write_bytes((tmp_path / "delta").read_bytes()[:-100])
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "no readable safetensors file")


def test_a_file_of_someone_else_is_refused(fresh, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "delta")
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "holds a delta of None")
