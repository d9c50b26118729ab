"""ArtAttention: body parts attend to each other within a frame, and time is a sum of templates that move like cubics.

LMM (arXiv 2404.01284; equations from its code, marked primary in the card; what differs here is marked ours):

    (Vb, Kb, Qb, Km, Vm) = MoE(LayerNorm x)                       each token of width L
    Ys(t) = softmax_channel(Qb) [softmax_parts(Kb)^T Vb]          linear attention over the parts of one frame
    G = softmax_tokens(Km + near)^T Vm                            templates, per part, of frames, conditions, learned tokens
    tau = sigmoid(MLP(G) / s + c) n d                             a template's place in time [s]; n frames of d seconds
    S, V, A, J = FFN_1..4(G) + G                                  its state, velocity, acceleration, jerk
    w(t) = softmax_templates(-((t - tau) / sigma)^2)
    Yt(t) = sum w [S + V (t - tau) + A (t - tau)^2 + J (t - tau)^3]
    x + Styl(Ys + Yt, emb)                                        Styl: LayerNorm, scale and shift of emb, SiLU, linear of zeros

Ours: a template gathers frames near the place where it begins, ``near = log(20 d) - ((t - sigmoid(c) n d) / rho)^2`` with
``rho`` learned per part (the release gathers from all frames alike), and a frame counts by the time that it lasts; centres
begin evenly spread (the release begins with all in the middle), ``sigma`` is learned per part (the release is fixed at 1 s),
templates may be fewer than L, parts that are absent are left out of the softmax (there they enter as a mask token), and the sum
is taken in the direct form, for powers of t collected separately cancel (error as t^3). Time enters in seconds only, so motion
at another frame rate meets the same templates at the same times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from visviva.models.motion.experts import Experts

ABSENT = -1e6
"""Added to keys of frames beyond the end and of absent parts and conditions before the softmax."""


@dataclass(frozen=True)
class Frames:
    """What a layer knows of the frames.

    Attributes:
        there: frames before the end, (B, T); ``parts``: of those that the layout has, which the motion has, (B, H).
        times: of the frames, (B, T) [s]; ``duration``: of the motion, (B,) [s].
        embedding: of diffusion time and text, (B, E).
    """

    there: Tensor
    parts: Tensor
    times: Tensor
    duration: Tensor
    embedding: Tensor


class Stylised(nn.Module):
    """``W SiLU(LayerNorm(x) (1 + scale) + shift)`` with scale and shift of an embedding; W begins at 0."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "B T H L"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B T H L"]:
        """Return what is added to the residual stream."""
        scale, shift = self.modulation(nn.functional.silu(embedding))[:, None, None].chunk(2, -1)
        return self.out(nn.functional.silu(self.norm(x) * (1 + scale) + shift))


class Templates(nn.Module):
    """From templates to motion over time: centres, then a cubic about each, weighted by nearness in time.

    Args:
        width: of a template; ``count``: of templates per part; ``parts``: H.
        sigma: the weights' first width in time [s].
    """

    def __init__(self, width: int, count: int, parts: int, sigma: float = 0.1) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.centre = nn.Parameter(torch.logit((torch.arange(count) + 0.5) / count).expand(parts, count).clone())
        self.log_sigma = nn.Parameter(torch.full((parts,), sigma).log())
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Parameter(torch.randn(4, width, width) / (2 * width) ** 0.5)

    def logits(self, templates: Float[Tensor, "B H K L"], parts: Sequence[int]) -> Float[Tensor, "B H K"]:
        """Return the centres' logits; tau = sigmoid(logits) duration."""
        return self.place(templates)[..., 0] / self.scale + self.centre[list(parts)]

    def derivatives(self, templates: Float[Tensor, "B H K L"]) -> Float[Tensor, "B H 4 K L"]:
        """Return state, velocity, acceleration and jerk of each template [1, 1/s, 1/s^2, 1/s^3]."""
        hidden = nn.functional.gelu(self.rise(templates)).unflatten(-1, (4, -1))
        return torch.einsum("bhkdl,dlm->bhdkm", hidden, self.fall) + templates[:, :, None]

    def forward(self, templates: Float[Tensor, "B H K L"], frames: Frames, parts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return Yt at the frames' times (B, T, H, L), and the centres' logits (B, H, K)."""
        logits = self.logits(templates, parts)
        tau = logits.float().sigmoid() * frames.duration[:, None, None]
        sigma = self.log_sigma[list(parts)].float().exp()
        return expanded(self.derivatives(templates), tau, sigma, frames.times), logits


def expanded(
    derivatives: Float[Tensor, "B H 4 K L"],
    tau: Float[Tensor, "B H K"],
    sigma: Float[Tensor, " H"],
    times: Float[Tensor, "B T"],
) -> Float[Tensor, "B T H L"]:
    """Return ``sum_k w_k(t) [S_k + V_k (t - tau_k) + A_k (t - tau_k)^2 + J_k (t - tau_k)^3]``, no 1/2 and 1/6 (the release).

    Args:
        derivatives: S, V, A, J of K templates; ``tau``: their centres [s].
        sigma: width of the weights of each part [s]; ``times``: of the frames [s].
    """
    dt = times[:, None, :, None] - tau[:, :, None]  # (B, H, T, K)
    weight = (-(dt / sigma[:, None, None]).square()).softmax(-1)
    powers = torch.stack((weight, weight * dt, weight * dt.square(), weight * dt**3), -2)  # (B, H, T, 4, K)
    return (powers.flatten(-2).to(derivatives) @ derivatives.flatten(2, 3)).transpose(1, 2)


class ArtAttention(nn.Module):
    """One attention layer of the motion transformer; see the file's head.

    Args:
        width: of a token (L); ``embedding``: of diffusion time and the rest.
        parts: H; ``templates``: per part; ``groups``: kinds of further tokens (text, data set, rotation).
        experts, top: of the mixture that makes keys and values.
        sigma: first width of the weights in time [s].
        gather: first width in time [s] in which a template gathers frames about its first centre; None: from all frames alike.
    """

    def __init__(
        self,
        width: int,
        embedding: int,
        parts: int = 10,
        templates: int | None = None,
        groups: int = 3,
        experts: int = 1,
        top: int = 1,
        sigma: float = 0.1,
        gather: float | None = 0.12,
    ) -> None:
        super().__init__()
        self.width, self.count = width, templates or width
        self.log_gather = None if gather is None else nn.Parameter(torch.full((parts,), gather).log())
        self.norm = nn.LayerNorm(width)
        self.experts = Experts(width, 4 * width + self.count, width, experts, top)
        self.further = nn.ModuleList(nn.Linear(width, self.count + width) for _ in range(groups))
        self.warmth = nn.Parameter(torch.ones(groups + 1))
        self.templates = Templates(width, self.count, parts, sigma)
        self.styl = Stylised(width, embedding)

    def forward(
        self,
        x: Float[Tensor, "B T H L"],
        frames: Frames,
        parts: Sequence[int],
        further: Sequence[tuple[Tensor, Tensor]],
    ) -> tuple[Float[Tensor, "B T H L"], dict[str, Tensor]]:
        """Return the tokens after the layer, and ``logits`` of the centres and the experts' ``balance``.

        Args:
            x: tokens of the parts that ``parts`` lists.
            further: per group the tokens (B, W, L) and which of them are there (B, W).
        """
        made, balance = self.experts(self.norm(x))
        vb, kb, qb, vm, km = made.split([self.width] * 4 + [self.count], -1)
        key = (km + self.near(frames, parts)).to(km)
        yt, logits = self.templates(self.gathered(key, vm, frames.there, further), frames, parts)
        ys = bodies(qb, kb, vb, frames.parts)
        return x + self.styl(ys + yt, frames.embedding), {"logits": logits, "balance": balance}

    def near(self, frames: Frames, parts: Sequence[int]) -> Float[Tensor, "B T H K"] | float:
        """Return what is added to the frames' keys, see the file's head."""
        if self.log_gather is None:
            return 0.0
        step = (20 * frames.duration / frames.there.sum(1)).log()[:, None, None, None]
        centre = self.templates.centre[list(parts)].sigmoid() * frames.duration[:, None, None]  # (B, H, K)
        apart = frames.times[:, :, None, None] - centre[:, None]
        return step - (apart / self.log_gather[list(parts)].exp()[:, None]).square()

    def gathered(
        self, key: Tensor, value: Tensor, there: Bool[Tensor, "B T"], further: Sequence[tuple[Tensor, Tensor]]
    ) -> Float[Tensor, "B H K L"]:
        """Return the templates ``G = softmax_tokens(K)^T V`` of frames, condition and learned tokens."""
        parts = key.shape[2]
        keys, values, known = [key / self.warmth[0]], [value], [there]
        for warmth, project, (tokens, present) in zip(self.warmth[1:], self.further, further, strict=True):
            k, v = project(tokens)[:, :, None].expand(-1, -1, parts, -1).split([self.count, self.width], -1)
            keys, values, known = [*keys, k / warmth], [*values, v], [*known, present]
        hidden = (~torch.cat(known, 1))[:, :, None, None]
        weight = torch.cat(keys, 1).float().masked_fill(hidden, ABSENT).softmax(1).to(value)
        return torch.einsum("bnhk,bnhl->bhkl", weight, torch.cat(values, 1).masked_fill(hidden, 0.0))


def bodies(
    query: Float[Tensor, "B T H L"], key: Float[Tensor, "B T H L"], value: Float[Tensor, "B T H L"], parts: Bool[Tensor, "B H"]
) -> Float[Tensor, "B T H L"]:
    """Return linear attention over the parts of each frame, ``softmax_channel(Q) (softmax_parts(K)^T V)``.

    Frames do not see each other here, so those beyond the end need no mask.
    """
    hidden = ~parts[:, None, :, None]
    weight = key.float().masked_fill(hidden, ABSENT).softmax(2).to(value)
    context = torch.einsum("bthk,bthl->btkl", weight, value.masked_fill(hidden, 0.0))
    return query.float().softmax(-1).to(value) @ context


class PlainAttention(nn.Module):
    """The rival: softmax attention of every part over time and conditions, and over the parts of each frame; same reading in
    and out, time only by its embedding."""

    def __init__(self, width: int, embedding: int, groups: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 6 * width)
        self.further = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(groups))
        self.styl = Stylised(width, embedding)

    def forward(
        self,
        x: Float[Tensor, "B T H L"],
        frames: Frames,
        parts: Sequence[int],
        further: Sequence[tuple[Tensor, Tensor]],
    ) -> tuple[Float[Tensor, "B T H L"], dict[str, Tensor]]:
        """Return the tokens after the layer; nothing beside them."""
        qb, kb, vb, qm, km, vm = self.project(self.norm(x)).chunk(6, -1)
        known, keys, values = [frames.there], [km.transpose(1, 2)], [vm.transpose(1, 2)]
        for project, (tokens, present) in zip(self.further, further, strict=True):
            k, v = project(tokens)[:, None].expand(-1, x.shape[2], -1, -1).chunk(2, -1)
            known, keys, values = [*known, present], [*keys, k], [*values, v]
        mask = torch.cat(known, 1)[:, None, None, None].expand(-1, x.shape[2], -1, -1, -1)
        time = self._attend(qm.transpose(1, 2), torch.cat(keys, 2), torch.cat(values, 2), mask)
        body = self._attend(qb, kb, vb, frames.parts[:, None, None, None].expand(-1, x.shape[1], -1, -1, -1))
        return x + self.styl(body + time.transpose(1, 2), frames.embedding), {}

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for y in (q, k, v))
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.transpose(-2, -3).flatten(-2)
