"""`attend`: attention whose keys and values are more than the tokens'."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab03_prompts.inputs import CUT, lost_gradients


def attend(
    q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, P_k: torch.Tensor, P_v: torch.Tensor
) -> torch.Tensor:
    """One head: queries (M, d), keys (N, d), values (N, d_v), and n more of both -> (M, d_v)."""
    return F.scaled_dot_product_attention(q, torch.cat([P_k, K]), torch.cat([P_v, V]))


# Challenges


def width_1() -> tuple:
    q = torch.tensor([[1.0]])
    K = torch.tensor([[0.0], [math.log(2)]])
    V = torch.tensor([[4.0], [10.0]])
    P_k = torch.tensor([[0.0]])
    P_v = torch.tensor([[2.0]])
    return q, K, V, P_k, P_v


def width_4() -> tuple:
    q = torch.tensor([[2.0, 0, 0, 0]])
    K = torch.zeros(1, 4)
    V = torch.tensor([[8.0]])
    P_k = torch.tensor([[math.log(3), 0, 0, 0]])
    P_v = torch.tensor([[0.0]])
    return q, K, V, P_k, P_v


def random_head() -> tuple:
    """Random numbers, but for a query that suits a key as well as some do in a pretrained network."""
    q = torch.randn(3, 4)
    K = torch.randn(5, 4)
    q[2] = 300 * K[0] / K[0].square().sum()  # with the first key a logit of 150: exp(150) is no float32
    V = torch.randn(5, 2)
    P_k = torch.randn(2, 4)
    P_v = torch.randn(2, 2)
    return q, K, V, P_k, P_v


# What a later section needs: prompts learn, and so do those of earlier blocks, through q, K and V


def lets_gradients_through(answer, output, q, K, V, P_k, P_v) -> str | None:
    """Which input gets no gradient, in words."""
    inputs = {"q": q, "K": K, "V": V, "P_k": P_k, "P_v": P_v}
    return lost_gradients(answer, inputs, tuple(inputs))


# Mistakes


@mistake(CUT)
def without_a_graph(q, K, V, P_k, P_v):
    return attend(q, K, V, P_k, P_v).detach()


@mistake(
    "You took two softmaxes, one over the tokens and one over the prompts, and added the results. Each sums "
    "to 1, so nobody shares. There is one softmax, over all keys."
)
def two_softmaxes_added(q, K, V, P_k, P_v):
    from_tokens = (q @ K.T / math.sqrt(q.shape[1])).softmax(-1) @ V
    from_prompts = (q @ P_k.T / math.sqrt(q.shape[1])).softmax(-1) @ P_v
    return from_tokens + from_prompts


@mistake(
    "You averaged the attention to the tokens and that to the prompts: half and half, whatever the logits "
    "say. One softmax over all keys decides how much a prompt gets."
)
def two_softmaxes_averaged(q, K, V, P_k, P_v):
    from_tokens = (q @ K.T / math.sqrt(q.shape[1])).softmax(-1) @ V
    from_prompts = (q @ P_k.T / math.sqrt(q.shape[1])).softmax(-1) @ P_v
    return (from_tokens + from_prompts) / 2


@mistake("Your result does not depend on the prompts: keys and values are still the old ones.")
def without_the_prompts(q, K, V, P_k, P_v):
    return (q @ K.T / math.sqrt(q.shape[1])).softmax(-1) @ V


@mistake("Your result depends on the prompts alone; the tokens must stay among keys and values.")
def without_the_tokens(q, K, V, P_k, P_v):
    return (q @ P_k.T / math.sqrt(q.shape[1])).softmax(-1) @ P_v


@mistake("You exchanged P_k and P_v: what a prompt is found by is its key, what it gives is its value.")
def keys_and_values_exchanged(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_v, K]), torch.cat([P_k, V])
    return (q @ keys.T / math.sqrt(q.shape[1])).softmax(-1) @ values


@mistake(
    "You put prompts in front of the keys but behind the values, so every key fetches another one's value. "
    "The order does not matter, but it must be the same."
)
def in_front_of_keys_behind_values(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([V, P_v])
    return (q @ keys.T / math.sqrt(q.shape[1])).softmax(-1) @ values


@mistake(
    "Your prompts also ask: you put them among the queries, so there are rows too many. A prefix is seen and "
    "does not see."
)
def prompts_among_the_queries(q, K, V, P_k, P_v):
    queries = torch.cat([P_k, q])
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (queries @ keys.T / math.sqrt(q.shape[1])).softmax(-1) @ values


@mistake("The logits are not divided by sqrt(d): the softmax is too sharp.")
def without_the_scale(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T).softmax(-1) @ values


@mistake("You divided the logits by d; it is sqrt(d).")
def divided_by_d(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T / q.shape[1]).softmax(-1) @ values


@mistake("You divided by the square root of how many keys there are; d is the width of a key, q.shape[1].")
def divided_by_root_of_keys(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T / math.sqrt(len(keys))).softmax(-1) @ values


@mistake("You divided after the softmax: the weights no longer sum to 1. The logits are what sqrt(d) scales.")
def scaled_after_the_softmax(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T).softmax(-1) / math.sqrt(q.shape[1]) @ values


@mistake(
    "You took exp of the logits as they are. In the real network some are above 88, and exp(89) is more than "
    "float32 holds: inf / inf is nan. `softmax` subtracts the largest logit first; use it."
)
def exp_that_overflows(q, K, V, P_k, P_v):
    weights = (q @ torch.cat([P_k, K]).T / math.sqrt(q.shape[1])).exp()
    return weights @ torch.cat([P_v, V]) / weights.sum(-1, keepdim=True)


@mistake(
    "Your softmax runs over the queries. Each query shares its attention among all keys: over the last axis."
)
def softmax_over_the_queries(q, K, V, P_k, P_v):
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T / math.sqrt(q.shape[1])).softmax(0) @ values


EXERCISE = Exercise(
    reference=attend,
    challenges=(
        Challenge("one query, two tokens, one prompt, d = 1", width_1),
        Challenge("the same with d = 4, where the scale counts", width_4),
        Challenge("random numbers, two prompts", random_head),
    ),
    mistakes=(
        two_softmaxes_added,
        two_softmaxes_averaged,
        without_the_prompts,
        without_the_tokens,
        keys_and_values_exchanged,
        in_front_of_keys_behind_values,
        prompts_among_the_queries,
        without_the_scale,
        divided_by_d,
        divided_by_root_of_keys,
        scaled_after_the_softmax,
        exp_that_overflows,
        softmax_over_the_queries,
        without_a_graph,
    ),
    properties={"lets gradients through": lets_gradients_through},
    hints=(
        "How many keys does each query see now? Everything else is attention as you know it.",
        "softmax(q [P_k; K]^T / sqrt(d)) [P_v; V], where [;] puts rows on top of each other.",
        "K, V = torch.cat([P_k, K]), torch.cat([P_v, V]), then (q @ K.T / q.shape[1] ** 0.5).softmax(-1) @ V",
    ),
)
