"""What crosses the wall of the jail, both ways."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.grading.codec import BadValue, Decoder, Encoder, Foreign, Skeleton
from labkit.lessons import difference


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 2.0
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) * self.scale


def carried(value, trusted=True, objects=None, call=None):
    node = json.loads(json.dumps(Encoder().node(value)))
    return Decoder(objects if objects is not None else {}, trusted, call).value(node)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**60),
        0.1,
        1j,
        "täxt",
        [1, (2.0, "x")],
        {"a": 1, 2: None},
        np.float32(0.5),
        np.arange(6).reshape(2, 3),
        np.zeros((0, 4), dtype=bool),
        torch.arange(4, dtype=torch.bfloat16),
        torch.ones(2, 2, requires_grad=True),
        {"t": torch.tensor(3), "l": [np.ones(2, dtype=np.uint8)]},
    ],
)
def test_data_comes_out_as_it_went_in(value):
    assert difference(carried(value), value) is None


def test_numbers_that_are_not_finite_come_out_as_they_went_in():
    assert np.isnan(carried(float("nan")))
    assert carried(-float("inf")) == -float("inf")


def test_a_module_works_in_the_jail_as_it_does_here():
    module, x = Toy(), torch.ones(1, 3)
    module.layer.bias.requires_grad_(False)
    module.layer.weight.grad = torch.full((2, 3), 0.5)
    inside = carried(module, trusted=False)
    assert torch.equal(inside(x), module(x))
    assert not inside.layer.bias.requires_grad
    assert torch.equal(inside.layer.weight.grad, module.layer.weight.grad)


def test_an_optimizer_in_the_jail_moves_the_module_that_came_with_it():
    module = Toy()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.5)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    inside, moved = carried((module, optimizer), trusted=False)
    for one, other in ((module, optimizer), (inside, moved)):
        one(torch.ones(1, 3)).sum().backward()
        other.step()
    assert difference(dict(inside.named_parameters()), dict(module.named_parameters())) is None


def outside(x, scale=3.0):
    return helper(x) * scale


def helper(x):
    return F.relu(x)


def test_functions_work_in_the_jail_as_they_do_here_and_come_back_as_themselves():
    weights = torch.tensor([1.0, -2.0])
    ours = (outside, lambda x: [x @ weights for _ in range(2)], torch.tanh, F.gelu)
    encoder, there = Encoder(), {}
    inside = Decoder(there, trusted=False).value(json.loads(json.dumps(encoder.node(ours))))
    for here, in_jail in zip(ours, inside, strict=True):
        assert difference(in_jail(torch.ones(2)), here(torch.ones(2))) is None
    back = json.loads(json.dumps(Encoder(there, offer=lambda value: 0).node(inside)))
    returned = Decoder(dict(encoder.objects), trusted=True).value(back)
    assert all(one is other for one, other in zip(returned, ours, strict=True))


def test_no_function_is_made_from_what_comes_out_of_the_jail():
    node = Encoder().node(outside)
    with pytest.raises(BadValue, match="unknown kind"):
        Decoder({}, trusted=True).value(node)
    with pytest.raises(BadValue, match="no code of Python"):
        Encoder().node(len)


def test_our_own_inputs_are_updated_in_place():
    module, array = Toy(), np.zeros(3)
    encoder = Encoder()
    sent = encoder.node((module, array))
    there: dict = {}
    theirs, their_array = Decoder(there, trusted=False).value(json.loads(json.dumps(sent)))
    with torch.no_grad():
        theirs.layer.weight.fill_(7)
    theirs.requires_grad_(False).eval()
    their_array[1] = 5
    back = Encoder(there, offer=lambda value: 0).node((theirs, their_array))
    got, got_array = Decoder(dict(encoder.objects), trusted=True, call=lambda handle: None).value(back)
    assert got is module and got_array is array
    assert (module.layer.weight == 7).all() and not module.layer.weight.requires_grad
    assert not module.training and array.tolist() == [0, 5, 0]


def test_a_module_of_the_students_is_a_skeleton_whose_call_goes_into_the_jail():
    node = Encoder(offer=lambda value: 4).node(Toy())
    got = Decoder(
        {}, trusted=True, call=lambda handle: lambda *x, parameters: (handle, x, list(parameters))
    ).value(node)
    assert isinstance(got, Skeleton) and got.class_name == "Toy"
    names = [name for name, _ in got.named_parameters()]
    assert got(1) == (4, (1,), names) and names == ["layer.weight", "layer.bias"]


def test_what_is_neither_data_nor_callable_is_equal_to_nothing():
    got = Decoder({}, trusted=True).value(Encoder(offer=lambda value: 0).node(iter([])))
    assert isinstance(got, Foreign) and got != got


def bad_nodes():
    array = Encoder().node(np.zeros(3))
    module = {**Encoder().node(Toy()), "made": {"name": "os:system"}}
    deep = {"t": "plain", "v": None}
    for _ in range(40):
        deep = {"t": "list", "v": [deep]}
    yield from (None, 5, [], {}, {"t": "nothing"}, deep, module)
    yield {**array, "shape": [2**39]}
    yield {**array, "shape": [-1]}
    yield {**array, "dtype": "object"}
    yield {**array, "data": "!"}
    yield {"t": "ref", "id": 9}
    yield {"t": "int", "v": "xyz"}
    yield {"t": "dict", "v": [[{"t": "list", "v": []}, {"t": "plain", "v": None}]]}
    yield {"t": "list", "v": [{"t": "plain", "v": None}] * 30_000}


@pytest.mark.parametrize("node", list(bad_nodes()))
def test_evidence_that_is_not_well_formed_is_told_from_ours(node):
    with pytest.raises(BadValue):
        Decoder({}, trusted=True).value(copy.deepcopy(node))


@pytest.mark.parametrize(
    "value, says",
    [
        (torch.eye(2).to_sparse(), "sparse tensor; return an ordinary one: `.to_dense()`"),
        (torch.zeros(2, device="meta"), "device meta"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "dtype float8_e4m3fn"),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "quantized"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested"),
        (torch.zeros(1).expand(10**9), "more than 5 MB"),
        (np.broadcast_to(np.zeros(1), 10**9), "more than 5 MB"),
    ],
    ids=["sparse", "meta", "float8", "quantized", "nested", "expanded", "broadcast"],
)
def test_a_result_whose_values_cannot_be_read_is_named(value, says):
    with pytest.raises(BadValue, match=says.split(":")[0]):
        Encoder(offer=lambda value: 0).node(value)


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, nn.Linear(2, 2)) for name in ("half", "double", "forward", "call", "class_name")]
    + [(name, nn.Parameter(torch.ones(2))) for name in ("call", "class_name")],
)
def test_a_part_may_have_a_name_that_torch_or_we_have_taken(name, part):
    module = nn.Sequential(nn.ReLU())
    setattr(module, name, part)  # which torch lets students do; register_module would not
    got = Decoder({}, trusted=True, call=lambda handle: None).value(Encoder(offer=lambda v: 0).node(module))
    assert {name for name, _ in [*got.named_modules(), *got.named_parameters()]} == {
        name for name, _ in [*module.named_modules(), *module.named_parameters()]
    }


@pytest.mark.parametrize("name", ["blocks.0.fc1", ""])
def test_a_part_with_a_path_for_a_name_is_said_in_words(name):
    module = nn.Sequential(nn.ReLU())
    setattr(module, name, nn.Linear(2, 2))
    with pytest.raises(BadValue, match=f"a Sequential that has a part named {name!r}: a part's own name"):
        Encoder(offer=lambda value: 0).node(module)


def test_a_part_of_another_kind_than_its_place_is_no_evidence():
    node = Encoder(offer=lambda value: 0).node(nn.Linear(2, 2))
    node["modules"]["weight"] = Encoder().node(torch.ones(2))
    with pytest.raises(BadValue, match="a module whose weight is none of its modules"):
        Decoder({}, trusted=True, call=lambda handle: None).value(node)


def called_in_the_jail(function, *inputs, spoil=lambda node: node, parameters=None):
    """Inputs go in, the function is called there, and its output comes back, with our own inputs; what it
    offers can be called again in the same way."""
    offered = []
    ours = Encoder()
    sent = json.loads(json.dumps(ours.node(inputs)))
    there = {}
    given = Decoder(there, trusted=False).value(sent)
    output = function(*given)
    own = dict(function.named_parameters()) if isinstance(function, nn.Module) else None
    encoder = Encoder(there, offer=lambda value: offered.append(value) or len(offered) - 1, parameters=own)
    back = json.loads(json.dumps([spoil(encoder.node(output)), encoder.node(given)]))

    def call(handle):
        return lambda *inputs, parameters=None: called_in_the_jail(
            offered[handle], *inputs, parameters=parameters
        )

    decoder = Decoder(dict(ours.objects), trusted=True, call=call, parameters=parameters)
    output, after = map(decoder.value, back)
    assert len(after) == len(inputs)
    return output


def hard(z):
    soft = z.softmax(1)
    return F.one_hot(z.argmax(1), z.shape[1]) + soft - soft.detach()


@pytest.mark.parametrize(
    "function",
    [hard, lambda z: (z**2).mean(), lambda z: z.exp().sum(0), lambda z: z.double() @ z.double().T],
    ids=["one-hot", "number", "vector", "matrix"],
)
def test_gradients_through_an_answer_come_back_with_its_value(function):
    z = torch.randn(4, 3, requires_grad=True)
    found, expected = called_in_the_jail(function, z), function(z)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    mine, theirs = (torch.autograd.grad((output * weights).sum(), z)[0] for output in (found, expected))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "function", [lambda z: hard(z).detach().requires_grad_(), lambda z: torch.ones(2, requires_grad=True) * 2]
)
def test_an_answer_that_no_gradient_passes_has_none_outside_either(function):
    from labkit.lessons.authoring import gradient

    z = torch.randn(4, 3, requires_grad=True)
    found = called_in_the_jail(function, z)
    assert found.requires_grad and not gradient(found, z).any()


def test_gradients_to_the_parameters_of_a_students_module_come_back_too():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.A = nn.Parameter(torch.randn(2, 3))
            self.inner = nn.Linear(2, 2)
            self.inner.bias.requires_grad_(False)

        def forward(self, x):
            return self.inner(x @ self.A.T).tanh()

    made, x = [], torch.randn(5, 3, requires_grad=True)
    skeleton = called_in_the_jail(lambda: made.append(Student()) or made[0])
    assert isinstance(skeleton, Skeleton)
    for call in (skeleton, made[0]):
        call(x).square().sum().backward()
    theirs, mine = (dict(one.named_parameters()) for one in (made[0], skeleton))
    assert mine["A"] is not theirs["A"] and mine["inner.bias"].grad is None
    for name in ("A", "inner.weight"):
        torch.testing.assert_close(mine[name].grad, theirs[name].grad)
    assert mine["A"].grad.any()


def test_gradients_that_do_not_fit_are_no_evidence():
    def of_another(node):
        node["slopes"]["to"] = [77]
        return node

    def of_what_takes_none(node):
        node["slopes"]["to"] = [2]
        return node

    z, frozen = torch.randn(4, 3, requires_grad=True), torch.ones(2)
    for spoil in (of_another, of_what_takes_none):
        with pytest.raises(BadValue):
            called_in_the_jail(lambda z, _: hard(z), z, frozen, spoil=spoil)


@pytest.mark.parametrize("wrong", [lambda G: G, lambda G: (G,), lambda G: ("1",), lambda G: (G.T, G)])
def test_gradients_of_another_shape_are_no_evidence(wrong):
    z = torch.randn(4, 3, requires_grad=True)
    node = Encoder(offer=lambda value: 0).node(z.detach().T.contiguous())
    node["slopes"] = {"handle": 0, "to": [50]}
    found = Decoder({50: z}, trusted=True, call=lambda handle: wrong).value(node)
    with pytest.raises(BadValue, match="gradients that are not those of the challenge's inputs"):
        found.sum().backward()


def test_a_large_output_has_its_graph_too():
    z = torch.randn(400, 300, requires_grad=True)
    called_in_the_jail(lambda z: z * 2, z).sum().backward()
    assert (z.grad == 2).all()
