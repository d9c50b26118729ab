"""Lifting of 2D poses to 3D by in-context learning, in the form of Skeleton-in-Context (arXiv 2312.03703; its code: primary).

A *prompt pair* (a 2D window and its true 3D one, from a pool) shows the task; the *query pair* has the 2D window that is to be
lifted and a pseudo target. Each pair is one sequence [input; target] of 2F frames.
Every depth has two streams, space then time and time then space, mixed by a softmax gate from ``Linear(2 dim, 2)`` that starts
at one half each; the first depths run prompt and query side by side, then the two are averaged. The second half of the time
axis is the answer.

Ours: small sizes; the pseudo target is not the mean pose sequence (SiC's static prompt) but a perceptron's guess from each
frame and its neighbours, which the transformer corrects (one this small learns little in minutes); the 2D window is that of a
level camera about its root, scaled to the size of an average body, so that across and up are nearly right already and are added
to the answer (as the static prompt's residual adds its input); the channel that is constant there holds the detector's
confidence here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

RADIUS = 0.42
"""Root mean square distance of an average body's joints from its hip, across and up [m]."""


def normalised(plane: Float[Tensor, "*batch T J 2"], confidence: Float[Tensor, "*batch T J"]) -> Float[Tensor, "*batch T J 3"]:
    """Return windows as the lifter takes them: (across, confidence - 1, up) about the hip, scaled to an average body.

    The scale is one for the window: the median over frames of the joints' root mean square distance from the hip.
    """
    about = plane - plane[..., :1, :]
    size = about.square().sum(-1).mean(-1).sqrt().quantile(0.5, dim=-1).clamp(min=1e-6)[..., None, None, None]
    about = RADIUS * about / size
    return torch.stack([about[..., 0], confidence - 1, about[..., 1]], -1)


class Stream(nn.Module):
    """Self-attention over one axis, then over the other, then a perceptron."""

    def __init__(self, width: int, heads: int, first: str) -> None:
        super().__init__()
        self.first, self.heads = first, heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.into = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "B T J W"]) -> Float[Tensor, "B T J W"]:
        """Return the tokens after the block."""
        for k in range(2):
            over_time = (self.first == "time") == (k == 0)
            x = x + self._attend(self.norms[k](x), k, over_time)
        return x + self.down(nn.functional.gelu(self.up(self.norms[2](x))))

    def _attend(self, x: Tensor, k: int, over_time: bool) -> Tensor:
        x = x.transpose(1, 2) if over_time else x
        parts = self.into[k](x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        seen = nn.functional.scaled_dot_product_attention(*parts).transpose(-2, -3).flatten(-2)
        seen = self.out[k](seen)
        return seen.transpose(1, 2) if over_time else seen


class Depth(nn.Module):
    """Both streams in parallel and their gate."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.space, self.time = Stream(width, heads, "space"), Stream(width, heads, "time")
        self.gate = nn.Linear(2 * width, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 0.5)

    def forward(self, x: Float[Tensor, "B T J W"]) -> Float[Tensor, "B T J W"]:
        """Return the mixed streams."""
        one, two = self.space(x), self.time(x)
        share = self.gate(torch.cat([one, two], -1)).softmax(-1)
        return one * share[..., :1] + two * share[..., 1:]


class Lifter(nn.Module):
    """2D windows in, 3D poses about the hip out.

    Args:
        frames: F of a window. joints: J. width, depth, heads: of the transformer. apart: depths before the streams of prompt
            and query are averaged. guess: width of the perceptron.

    Example::

        lifter = Lifter()
        lifter(query, prompt_input, prompt_target)  # (B, F, J, 3) [m], x right, y ahead, z up
    """

    def __init__(
        self,
        frames: int = 16,
        joints: int = 17,
        width: int = 48,
        depth: int = 3,
        heads: int = 4,
        apart: int = 1,
        guess: int = 320,
    ) -> None:
        super().__init__()
        self.frames, self.joints, self.apart, self.heads = frames, joints, apart, heads
        self.embed = nn.Linear(3, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, 1, joints, width))
        self.when = nn.Parameter(0.02 * torch.randn(1, 2 * frames, 1, width))
        self.depths = nn.ModuleList(Depth(width, heads) for _ in range(depth))
        self.norm, self.inner, self.outer = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 3)
        self.guesser = nn.Sequential(
            *(nn.Linear(9 * joints, guess), nn.GELU(), nn.Linear(guess, guess), nn.GELU(), nn.Linear(guess, 3 * joints))
        )
        nn.init.normal_(self.outer.weight, std=0.01)
        nn.init.zeros_(self.outer.bias)

    def guess(self, query: Float[Tensor, "B F J 3"]) -> Float[Tensor, "B F J 3"]:
        """Return the perceptron's poses: from each frame and those two before and after, beyond the ends the last ones."""
        x = query.flatten(2)
        before, after = torch.cat([x[:, :1], x[:, :1], x[:, :-2]], 1), torch.cat([x[:, 2:], x[:, -1:], x[:, -1:]], 1)
        found = self.guesser(torch.cat([before, x, after], -1)).unflatten(-1, query.shape[2:])
        return found + query * query.new_tensor([1.0, 0.0, 1.0])

    def forward(
        self,
        query: Float[Tensor, "B F J 3"],
        prompt: Float[Tensor, "B F J 3"],
        answer: Float[Tensor, "B F J 3"],
    ) -> Float[Tensor, "B F J 3"]:
        """Return the lifted windows.

        Args:
            query: `normalised` 2D windows.
            prompt, answer: pairs from a pool: `normalised` 2D windows and their 3D poses about the hip.

        Raises:
            InputError: windows of another length or number of joints.
        """
        for given in (query, prompt, answer):
            if given.shape[1:] != (self.frames, self.joints, 3):
                raise InputError(f"windows of the shape {tuple(given.shape[1:])}; ({self.frames}, {self.joints}, 3) is wanted")
        guess = self.guess(query)
        pairs = torch.cat([torch.cat([query, guess], 1), torch.cat([prompt, answer], 1)])
        x = self.embed(pairs) + self.place + self.when
        for number, depth in enumerate(self.depths):
            if number == self.apart:
                x = x.unflatten(0, (2, -1)).mean(0)
            x = depth(x)
        x = x[:, self.frames :]
        found = self.outer(torch.tanh(self.inner(self.norm(x))))
        return found + guess
