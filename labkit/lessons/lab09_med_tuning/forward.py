"""`forward`: the whole adapter as released, from its parts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake
from labkit.lessons.lab09_med_tuning.parts import Parts, parts


def forward(self: Parts, x: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens x (B, S, h, w, d) and M of the stage before (B, m, S, h, w) -> tokens and M, of these shapes."""
    h, M = bottleneck(self, x)
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return x + F.gelu(self.up((h + M).movedim(1, -1))), M


def bottleneck(self: Parts, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """h and M before the stages interact, both (B, m, S, h, w)."""
    h = F.gelu(self.down(x)).movedim(-1, 1)
    return h, self.mix(self.conv3(h) + self.conv5(h) + self.fourier(h))


def up(self: Parts, x: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Box 1's second half: (B, m, S, h, w) made wide, bent, and added to x."""
    return x + F.gelu(self.up(inner.movedim(1, -1)))


# What is compared


def facts(output: Any, self: Parts, x: torch.Tensor, before: torch.Tensor) -> dict[str, Any]:
    """Tokens, M, and the gradients that reach what the adapter was given and two of its parts."""
    if isinstance(output, torch.Tensor):
        raise Unfit("you returned one tensor; return two, the tokens and M: `return tokens, M`")
    if (
        not isinstance(output, (tuple, list))
        or [isinstance(one, torch.Tensor) for one in output] != [True] * 2
    ):
        raise Unfit("return two tensors, the tokens and M: `return tokens, M`")
    tokens, M = output
    if not (tokens.is_floating_point() and M.is_floating_point()):
        raise Unfit("tokens and M are real numbers with a fraction, float32 as x is")
    leaves = {"x": x, "before": before, "W_down": self.down.weight, "W of the filter": self.fourier.W}
    return {
        "tokens": tokens.detach(),
        "M": M.detach(),
        "gradients": {name: gradient(tokens.sum(), leaf) for name, leaf in leaves.items()},
        "gradients through M": {
            name: gradient(M.sum(), leaf) for name, leaf in leaves.items() if name != "x"
        },
    }


# Challenges


def one_token() -> tuple:
    return parts(2, 1, 1), torch.randn(1, 1, 1, 1, 2, requires_grad=True), before(1, 1, 1, 1, 1)


def first_stage() -> tuple:
    d, m, S, h, w = 3, 2, 2, 2, 2
    x = torch.randn(1, S, h, w, d, requires_grad=True)
    return parts(d, m, S), x, torch.zeros(1, m, S, h, w, requires_grad=True)


def two_volumes() -> tuple:
    B, d, m, S, h, w = 2, 4, 3, 3, 2, 3
    return parts(d, m, S), torch.randn(B, S, h, w, d, requires_grad=True), before(B, m, S, h, w)


def before(*shape: int) -> torch.Tensor:
    """M of the stage before, which a gradient has to reach: its adapters learn by it too."""
    return torch.randn(*shape, requires_grad=True)


# Mistakes


@mistake("You did not bend after W_down: h is GELU(W_down x).")
def not_bent_below(self, x, before):
    h = self.down(x).movedim(-1, 1)
    M = self.mix(self.conv3(h) + self.conv5(h) + self.fourier(h))
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return up(self, x, h + M), M


@mistake(
    "You left out the GELU after W_up. The paper has none there, but the released code does; we build that."
)
def not_bent_above(self, x, before):
    _, M = forward(self, x, before)
    return x + self.up((bottleneck(self, x)[0] + M).movedim(1, -1)), M


@mistake("You left out x. An adapter adds to what passes by; without `x + ...` it replaces it.")
def without_x(self, x, before):
    tokens, M = forward(self, x, before)
    return tokens - x, M


@mistake("You made M alone wide again. The formula has W_up (h + M): h passes by the branches.")
def without_h(self, x, before):
    _, M = forward(self, x, before)
    return up(self, x, M), M


@mistake("You sent h alone up, so M was computed for nothing: the formula has W_up (h + M).")
def without_M(self, x, before):
    return up(self, x, bottleneck(self, x)[0]), forward(self, x, before)[1]


@mistake("Your M of before the interaction goes up. What fuse makes takes its place, as the arrow says.")
def unfused_goes_up(self, x, before):
    h, M = bottleneck(self, x)
    return up(self, x, h + M), forward(self, x, before)[1]


@mistake("You handed on the M of before the interaction. The next stage is given the fused one.")
def unfused_handed_on(self, x, before):
    return forward(self, x, before)[0], bottleneck(self, x)[1]


@mistake("You added M once more. What fuse makes takes the place of M, as the arrow in the formula says.")
def M_added_once_more(self, x, before):
    h, M = bottleneck(self, x)
    M = M + self.fuse(torch.cat([M, self.align(before)], 1))
    return up(self, x, h + M), M


@mistake("You left the earlier stage out: align makes `before` fit, and fuse sees it beside M.")
def without_interaction(self, x, before):
    h, M = bottleneck(self, x)
    return up(self, x, h + M), M


@mistake("You left the first stage out. Given zeros, align still makes its bias of them, and fuse mixes M.")
def first_stage_left_out(self, x, before):
    return forward(self, x, before) if before.any() else without_interaction.code(self, x, before)


@mistake(
    "You added the aligned M to this stage's. The paper tried that (its ablation has Add, Max and Concat) "
    "and then let a matrix see both side by side: fuse(torch.cat([...], 1))."
)
def earlier_stage_added(self, x, before):
    h, M = bottleneck(self, x)
    M = M + self.align(before)
    return up(self, x, h + M), M


@mistake("You did not align `before`. In a Swin it has another grid and other channels; align makes it fit.")
def not_aligned(self, x, before):
    h, M = bottleneck(self, x)
    M = self.fuse(torch.cat([M, before], 1))
    return up(self, x, h + M), M


@mistake("You aligned M as well. It is of this stage and fits already.")
def both_aligned(self, x, before):
    h, M = bottleneck(self, x)
    M = self.fuse(torch.cat([self.align(M), self.align(before)], 1))
    return up(self, x, h + M), M


@mistake("You put the stage before first. The fuse of the released code has learned that M comes first.")
def stage_before_first(self, x, before):
    h, M = bottleneck(self, x)
    M = self.fuse(torch.cat([self.align(before), M], 1))
    return up(self, x, h + M), M


@mistake("You joined along the batch, as torch.cat does unless told the axis. Channels are axis 1.")
def joined_along_the_batch(self, x, before):
    h, M = bottleneck(self, x)
    M = self.fuse(torch.cat([M, self.align(before)]))
    return up(self, x, h + M), M


def of_branches(self, x, before, joined):
    """The adapter with other branches: `joined` makes (B, m, S, h, w) of h, before channels are mixed."""
    h = F.gelu(self.down(x)).movedim(-1, 1)
    M = self.fuse(torch.cat([self.mix(joined(h)), self.align(before)], 1))
    return up(self, x, h + M), M


@mistake("You left out the Fourier branch.")
def without_fourier(self, x, before):
    return of_branches(self, x, before, lambda h: self.conv3(h) + self.conv5(h))


@mistake("You left out the branch of kernel 3.")
def without_conv3(self, x, before):
    return of_branches(self, x, before, lambda h: self.conv5(h) + self.fourier(h))


@mistake("You left out the branch of kernel 5.")
def without_conv5(self, x, before):
    return of_branches(self, x, before, lambda h: self.conv3(h) + self.fourier(h))


@mistake("You put the branches one behind the other. They lie side by side: each is given h.")
def one_behind_the_other(self, x, before):
    return of_branches(self, x, before, lambda h: self.fourier(self.conv5(self.conv3(h))))


@mistake("You took the mean of the branches; the formula adds them.")
def mean_of_branches(self, x, before):
    return of_branches(self, x, before, lambda h: (self.conv3(h) + self.conv5(h) + self.fourier(h)) / 3)


@mistake("You did not mix: without `self.mix` no channel has heard of another when the stages meet.")
def not_mixed(self, x, before):
    h = F.gelu(self.down(x)).movedim(-1, 1)
    M = self.conv3(h) + self.conv5(h) + self.fourier(h)
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return up(self, x, h + M), M


@mistake("You mixed each branch for itself and added up: the bias of mix came in three times.")
def mixed_three_times(self, x, before):
    h = F.gelu(self.down(x)).movedim(-1, 1)
    M = sum(self.mix(branch(h)) for branch in (self.conv3, self.conv5, self.fourier))
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return up(self, x, h + M), M


@mistake(
    "You gave the branches tokens whose channels still lie last. Convolutions want (B, m, S, h, w): "
    "`.movedim(-1, 1)` takes the last axis to place 1."
)
def channels_left_last(self, x, before):
    h = F.gelu(self.down(x))
    return self.conv3(h), before


@mistake(
    "You moved the numbers by `reshape` or `view`. They keep the order in memory, so slices and channels "
    "are torn apart; `.movedim(-1, 1)` moves an axis."
)
def reshaped(self, x, before):
    h = F.gelu(self.down(x))
    h = h.reshape(len(x), -1, *x.shape[1:-1])
    M = self.mix(self.conv3(h) + self.conv5(h) + self.fourier(h))
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return x + F.gelu(self.up((h + M).reshape(*x.shape[:-1], -1))), M


@mistake(
    "You exchanged two axes by `transpose`: the slices then lie last, where columns should be. `.movedim(-1, "
    "1)` takes the channels to the front and leaves the others in their order."
)
def exchanged(self, x, before):
    h = F.gelu(self.down(x)).transpose(1, -1)
    M = self.mix(self.conv3(h) + self.conv5(h) + self.fourier(h))
    M = self.fuse(torch.cat([M, self.align(before)], 1))
    return x + F.gelu(self.up((h + M).transpose(1, -1))), M


@mistake("You returned the tokens alone. The next stage needs M too: `return tokens, M`.")
def tokens_alone(self, x, before):
    return forward(self, x, before)[0]


@mistake("You returned M first. Tokens come first, then M.")
def M_first(self, x, before):
    tokens, M = forward(self, x, before)
    return M, tokens


@mistake(
    "Your numbers are right, but something cuts the gradient off (`.detach()`, `.data`, `torch.no_grad()`, a "
    "way through NumPy). Nothing below would learn."
)
def detached(self, x, before):
    with torch.no_grad():
        return forward(self, x, before)


EXERCISE = Exercise(
    reference=forward,
    challenges=(
        Challenge("one token of two numbers, a bottleneck of one", one_token),
        Challenge("two slices of 2 x 2 tokens at the first stage, which is given 0", first_stage),
        Challenge("two volumes of three slices", two_volumes),
    ),
    result=facts,
    mistakes=(
        not_bent_below,
        not_bent_above,
        without_x,
        without_h,
        without_M,
        unfused_goes_up,
        unfused_handed_on,
        M_added_once_more,
        without_interaction,
        first_stage_left_out,
        earlier_stage_added,
        not_aligned,
        both_aligned,
        stage_before_first,
        joined_along_the_batch,
        without_fourier,
        without_conv3,
        without_conv5,
        one_behind_the_other,
        mean_of_branches,
        not_mixed,
        mixed_three_times,
        channels_left_last,
        reshaped,
        exchanged,
        tokens_alone,
        M_first,
        detached,
    ),
    hints=(
        "Follow the arrows of the figure, one box a line: down and GELU, three branches, mix, the earlier "
        "stage, up. Two of the arrows pass by.",
        "h = GELU(W_down x), channels moved to axis 1; M = mix(the three branches of h, added); "
        "M = fuse([M, align(before)]); tokens = x + GELU(W_up (h + M)), channels moved back.",
        "M = self.fuse(torch.cat([M, self.align(before)], 1)), and at the end "
        "return x + F.gelu(self.up((h + M).movedim(1, -1))), M",
    ),
)
