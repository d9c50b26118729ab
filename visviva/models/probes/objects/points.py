"""Points of the picture followed through a clip: positions, visibility and uncertainty, by chained flow or by a given tracker.

`track_points` needs no weights: a query is carried from frame to frame by the forward flow, and back to the first frame
by the backward flow. In each step the cycle is checked: the flow there and the flow back from there should cancel (Sundaram,
Brox, Keutzer, ECCV 2010, eq. 5). The cycle error also says how far off a step may be; errors of steps add up in quadrature.

    visible(step):  |u + u'(x + u)|^2 < 0.01 (|u|^2 + |u'|^2) + 0.5
    sigma^2(t) = sum over steps of (floor^2 + |u + u'(x + u)|^2 / 4)

Once lost, a point stays hidden: nothing carries it back. Positions run on differentiably, meaningless where not visible.
`Points` is the probe; `tapir` and `cotracker` adapt given networks to it. Coordinates are (x, y) [px], pixel centres at
integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement, Probe, check_frames
from visviva.physics.tracks import Tracks

Tracker = Callable[[Tensor, Tensor], Tracks]
"""A point tracker: frames (B, T, 3, H, W) in [0, 1] and queries (B, N, 3) = (t, x, y) in; tracks out."""


def track_points(
    forward: Float[Tensor, "B t 2 H W"],
    backward: Float[Tensor, "B t 2 H W"],
    queries: Float[Tensor, "B N 3"],
    *,
    floor: float = 0.05,
) -> Tracks:
    """Return the tracks of points carried by the flow; differentiable with respect to both flows.

    Args:
        forward: flow from frame t to t+1, on the pixels of frame t [px/frame].
        backward: flow from frame t+1 to t, on the pixels of frame t+1 [px/frame].
        queries: (t, x, y) of each point: a frame and a place in it [px].
        floor: standard error of one step of a flow that passes the check without error [px].

    The recursion runs over frames; clips and points go side by side.

    Raises:
        InputError: a query outside the clip.

    Example::

        flow = probe(frames, fps).flow
        back = probe(frames.flip(1), fps).flow.flip(1)
        track_points(forward=flow, backward=back, queries=queries).positions  # (B, T, N, 2)
    """
    steps = forward.shape[1]
    start = queries[..., 0].round().long()
    if bool((start < 0).any()) or bool((start > steps).any()):
        raise InputError(f"a query lies outside frames 0 to {steps}; give (t, x, y) with t within the clip")
    later = _chain(forward, backward, queries[..., 1:], start, floor)
    mirrored = [x.flip(1) for x in _chain(backward.flip(1), forward.flip(1), queries[..., 1:], steps - start, floor)]
    time = torch.arange(steps + 1, device=start.device).view(1, -1, 1)
    ahead = time >= start[:, None]
    positions = torch.where(ahead[..., None], later[0], mirrored[0])
    variance = torch.where(ahead, later[1], mirrored[1])
    seen = torch.where(ahead, later[2] > 0, mirrored[2] > 0)
    return Tracks(positions, seen, variance.detach().sqrt())


def _chain(there: Tensor, back: Tensor, place: Tensor, start: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Carry points from their start onwards: positions (B, T, N, 2), variances and whether seen (B, T, N)."""
    height, width = there.shape[-2:]
    variance = torch.full_like(place[..., 0], floor**2)
    seen = _inside(place, height, width)
    found = [(place, variance, seen)]
    for t in range(there.shape[1]):
        step = _at(there[:, t], place)
        ahead = place + step
        returned = _at(back[:, t], ahead)
        cycle = (step + returned).square().sum(-1).detach()
        scale = (step.square() + returned.square()).sum(-1).detach()
        kept = (cycle < 0.01 * scale + 0.5) & _inside(ahead, height, width)
        moves = t >= start
        place = torch.where(moves[..., None], ahead, place)
        variance = torch.where(moves, variance + floor**2 + cycle / 4, variance)
        seen = torch.where(moves, seen & kept, seen)
        found.append((place, variance, seen))
    positions, variances, visible = zip(*found, strict=True)
    return torch.stack(positions, 1), torch.stack(variances, 1), torch.stack(visible, 1)


def _at(flow: Float[Tensor, "B 2 H W"], places: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N 2"]:
    """Bilinear value of the flow at places [px]."""
    size = places.new_tensor([max(flow.shape[-1] - 1, 1), max(flow.shape[-2] - 1, 1)])
    grid = (places * 2 / size - 1)[:, :, None]
    found = torch.nn.functional.grid_sample(flow, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return found[..., 0].mT


def _inside(places: Tensor, height: int, width: int) -> Tensor:
    x, y = places.detach().unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)


def grid_queries(frames: Float[Tensor, "B T 3 H W"], across: int = 8) -> Float[Tensor, "B N 3"]:
    """Return queries on a regular grid of ``across`` x ``across`` points in the first frame."""
    clips, _, _, height, width = frames.shape
    ys = (torch.arange(across, dtype=frames.dtype, device=frames.device) + 0.5) * height / across - 0.5
    xs = (torch.arange(across, dtype=frames.dtype, device=frames.device) + 0.5) * width / across - 0.5
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    grid = torch.stack([torch.zeros_like(x), x, y], dim=-1).flatten(0, 1)
    return grid.expand(clips, -1, -1)


class Points:
    """Probe that follows points: measures tracks, one per query, and the flow that carried them.

    Args:
        source: a flow probe such as `LucasKanade` (chained by `track_points`), or a `Tracker` such as ``tapir(network)``.
        queries: (t, x, y) of the points, shape (N, 3) for every clip; None takes a grid of 8 x 8 in the first frame.

    Example::

        Points(LucasKanade())(frames, fps).tracks.positions  # (B, T, 64, 2)
    """

    name = "points"

    def __init__(self, source: Probe | Tracker, queries: Float[Tensor, "N 3"] | None = None) -> None:
        self.source, self.queries = source, queries

    @property
    def differentiable(self) -> bool:
        """Whether gradients of the positions reach the frames: with a differentiable flow; never with a given tracker."""
        return isinstance(self.source, Probe) and self.source.differentiable

    @property
    def measures(self) -> frozenset[str]:
        """Tracks, and what the flow probe measures."""
        return frozenset({"tracks"}) | (self.source.measures if isinstance(self.source, Probe) else frozenset())

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure the tracks; ``masks`` are passed on."""
        check_frames(frames, fps)
        queries = grid_queries(frames) if self.queries is None else self.queries.to(frames).expand(len(frames), -1, -1)
        if not isinstance(self.source, Probe):
            return Measurement(fps=fps, masks=masks, tracks=self.source(frames, queries))
        measured = self.source(frames, fps, masks)
        backward = self.source(frames.flip(1), fps).flow
        if measured.flow is None or backward is None:
            raise InputError(f"points are carried by flow, which {self.source.name!r} does not measure; give a flow probe")
        return measured.with_(tracks=track_points(measured.flow, backward.flip(1), queries))


def tapir(network: Callable[..., Any], sigma: float = 1.0, size: int = 256) -> Tracker:
    """Return a tracker by a network of TAPIR's published layout (TAPIR, BootsTAPIR, TAPNext; google-deepmind/tapnet).

    The network takes a video (B, T, h, w, 3) in [-1, 1] and queries (B, N, 3) = (t, y, x) [px of h x w], and returns a mapping
    with ``tracks`` (B, N, T, 2), (x, y) [px], and the logits ``occlusion`` and ``expected_dist``, (B, N, T). A point is visible
    where ``(1 - sigmoid(occlusion)) (1 - sigmoid(expected_dist)) > 0.5``. TAPIR counts pixels by their corners: the centre of
    the first one lies at (0.5, 0.5), which is converted here.

    Written from the documented layout and tested with a stand-in of that layout; *not* run with published weights.

    Args:
        network: the callable, for example ``torch.jit.load`` of a scripted network, on the device of the frames.
        sigma: standard error of a visible point [px of the network's picture]; the network gives none in pixels.
        size: side of the square picture that the network sees.
    """

    @torch.no_grad()
    def follow(frames: Tensor, queries: Tensor) -> Tracks:
        clips, steps, _, height, width = frames.shape
        small = torch.nn.functional.interpolate(frames.flatten(0, 1), (size, size), mode="bilinear", antialias=True)
        video = small.unflatten(0, (clips, steps)).movedim(2, -1) * 2 - 1
        scale = queries.new_tensor([size / width, size / height])
        place = (queries[..., 1:] + 0.5) * scale
        found = network(video, torch.cat([queries[..., :1], place.flip(-1)], dim=-1))
        seen = (1 - found["occlusion"].sigmoid()) * (1 - found["expected_dist"].sigmoid()) > 0.5
        positions = found["tracks"].transpose(1, 2) / scale - 0.5
        error = torch.full_like(positions[..., 0], sigma) / float(scale.min())
        return Tracks(positions, seen.transpose(1, 2), error)

    return follow


def cotracker(network: Callable[..., Any], sigma: float = 1.0) -> Tracker:
    """Return a tracker by a network of CoTracker's published predictor layout (facebookresearch/co-tracker; CC-BY-NC).

    The predictor takes a video (B, T, 3, H, W) in 0..255 and ``queries`` (B, N, 3) = (t, x, y) [px], resizes inside, and
    returns tracks (B, T, N, 2) [px] and visibility (B, T, N), bool or a probability.

    Written from the documented layout and tested with a stand-in of that layout; *not* run with published weights.

    Args:
        network: the callable, on the device of the frames.
        sigma: standard error of a visible point [px]; the network gives none.
    """

    @torch.no_grad()
    def follow(frames: Tensor, queries: Tensor) -> Tracks:
        positions, seen = network(frames * 255, queries=queries)[:2]
        visible = seen if seen.dtype == torch.bool else seen > 0.5
        return Tracks(positions.float(), visible, torch.full_like(positions[..., 0].float(), sigma))

    return follow
