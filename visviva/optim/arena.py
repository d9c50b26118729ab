"""The memory of an optimizer: parameters of one kind end to end, so that a step costs a few launches however many there are.

A `Segment` is the set of parameters that one program updates together: same group, chain, dtype, device and number of steps
done. A *direct* segment is one large tensor where it lies; an *arena* holds many tensors in one flat buffer per quantity. In
an arena the parameters' storage becomes views of the flat weights (values stay; sharded weights are copied in and out
instead); gradients are copied in (*gather*), or are views as well (*adopt*, see
`visviva.optim.optimizer.ChainOptimizer.adopt`). Tensors of one shape lie next to each other, each starting at a multiple of 64
bytes, so that matrix programs see them as one ``[k, rows, columns]`` view (a `Bucket`) without a copy.

States live in the segment, and ``optimizer.state[parameter]`` holds views of them in the usual per-parameter layout.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from visviva.errors import InputError
from visviva.optim.eight_bit import BLOCK
from visviva.optim.transform import Kept

GRADIENT = operator.attrgetter("grad")

SCALE = "_scale"
"""What the scales of a state in eight bits are called, after the state."""

ALIGN = 64
"""Bytes; where a tensor may start in an arena."""


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a ``DTensor``, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def powers(kept: Mapping[str, Kept], state_dtype: torch.dtype | None) -> dict[str, int]:
    """Return the power law of every state that is kept in eight bits: the averages per weight, where int8 is asked for."""
    if state_dtype != torch.int8:
        return {}
    return {name: 4 if k.square else 2 for name, k in kept.items() if k.kind == "weight" and k.moment}


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return (rows, columns) of a parameter: one row for vectors and scalars, ``[out, rest]`` for convolutions."""
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))


@dataclass
class Bucket:
    """The parameters of one shape within a segment: ``[k, rows, columns]`` at ``start``, ``stride`` apart, ``size`` numbers
    each."""

    members: list[Tensor]
    start: int
    stride: int
    size: int
    state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> torch.Size:
        """The parameters' (global) shape."""
        return self.members[0].shape

    @property
    def ndim(self) -> int:
        """The parameters' number of dimensions, at least 1."""
        return max(1, len(self.shape))

    @property
    def sharded(self) -> bool:
        """Whether the parameters are distributed over processes."""
        return isinstance(self.members[0], DTensor)

    def view(self, flat: Tensor) -> Tensor:
        """Return ``[k, rows, columns]``: a view of the segment's flat buffer, or the gathered whole of sharded parameters."""
        rows, columns = matrix_shape(self.shape)
        if self.sharded:
            whole = [_distributed(flat, piece, m).full_tensor() for piece, m in zip(self.pieces(), self.members, strict=True)]
            return torch.stack([w.reshape(rows, columns) for w in whole])
        return flat.as_strided(
            (len(self.members), rows, columns), (self.stride, columns, 1), flat.storage_offset() + self.start
        )

    def store(self, flat: Tensor, value: Tensor) -> None:
        """Write ``[k, rows, columns]`` back to the flat buffer (the own shards of sharded parameters)."""
        if not self.sharded:
            self.view(flat).copy_(value)
            return
        for piece, member, whole in zip(self.pieces(), self.members, value, strict=True):
            mesh, placements = member.device_mesh, member.placements  # type: ignore[attr-defined]
            full = DTensor.from_local(whole.reshape(self.shape), mesh, [Replicate()] * mesh.ndim, run_check=False)
            own = full.redistribute(placements=placements).to_local()
            flat[piece].copy_(own.reshape(-1))

    def pile(self, flat: Tensor, views: Sequence[Tensor], gradients: Sequence[Tensor], stack: bool) -> None:
        """Copy gradients to their views of the flat buffer; ``stack``: at once, where nothing lies between them."""
        if stack and self.stride == views[0].numel() > 0:
            end = self.start + self.stride * len(self.members)
            torch.stack(list(gradients), out=flat[self.start : end].view(len(self.members), *views[0].shape))
        else:
            torch._foreach_copy_(list(views), list(gradients))

    def pieces(self) -> list[slice]:
        """Return where each parameter's own numbers lie in the flat buffer."""
        starts = [self.start + i * self.stride for i in range(len(self.members))]
        return [slice(start, start + self.size) for start in starts]


def _distributed(flat: Tensor, piece: slice, like: Any) -> Any:
    shard = flat[piece].view(local(like).shape)
    return DTensor.from_local(shard, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


class Segment:
    """Weights, gradients, scratch and states of parameters that are updated together.

    Args:
        parameters: of one dtype and device; one large tensor (``direct``) or any number.
        kept: the states of the chain.
        states: what the optimizer knows of the parameters so far; entries are copied in, and replaced by views.
        t: steps done.
        state_dtype: of the states; None takes float32 at least, ``torch.int8`` keeps averages in eight bits.
        scratch: whether the update needs a buffer between the stages of the chain.
        changes_gradient: whether the changed gradient needs one too.
        capturable: whether step counts live on the device.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        kept: Mapping[str, Kept],
        states: Mapping[Tensor, dict[str, Any]],
        t: int,
        *,
        direct: bool,
        state_dtype: torch.dtype | None,
        scratch: bool,
        changes_gradient: bool,
        capturable: bool = False,
    ) -> None:
        self.kept, self.direct, self.t, self.moved = kept, direct, t, False
        self.gradients: list[Any] = []
        self.g_views: list[Tensor] = []
        self.g_places: list[int] = []
        self.adopts = self.adopted = False
        first = local(parameters[0])
        self.dtype, self.device = first.dtype, first.device
        self.wide = torch.promote_types(self.dtype, torch.float32)
        self.state_dtype = state_dtype or self.wide
        self.powers = powers(kept, self.state_dtype)
        self._lay_out(parameters)
        self.p = local(parameters[0]).detach().view(-1) if direct else self._buffer(self.dtype)
        self.g = self.p.new_empty(0) if direct else self._buffer(self.dtype)
        self.u = self._buffer(self.wide) if scratch else None
        self.changed_g = self._buffer(self.wide) if scratch and changes_gradient else None
        self.state = {name: self._filled(name, k) for name, k in kept.items() if k.kind == "weight"}
        self.scales = {n: torch.zeros(-(-self.size // BLOCK), device=self.device) for n in self.state if n in self.powers}
        self.chosen = self._buffer(torch.int32) if any(k.kind == "choice" for k in kept.values()) else None
        if not direct:
            self._take_weights()
        for bucket in self.buckets:
            self._small_states(bucket)
        on = self.device if capturable else "cpu"
        self.step = torch.full((len(self.parameters),), float(t), device=on)  # one each: states are saved apart
        self.sharded = isinstance(self.parameters[0], DTensor)
        self.places = [local(p.detach()).data_ptr() for p in self.parameters]
        self.strides = [local(p.detach()).stride() for p in self.parameters]
        self._expose(states)

    def _lay_out(self, parameters: Sequence[Tensor]) -> None:
        self.buckets: list[Bucket] = []
        grid = BLOCK if self.powers else max(1, ALIGN // parameters[0].element_size())
        position = 0
        ordered = sorted(parameters, key=lambda p: tuple(p.shape))
        for _, same in itertools.groupby(ordered, key=lambda p: (tuple(p.shape), tuple(local(p).shape))):
            members = list(same)
            size = self.entries(local(members[0]).numel())
            stride = -(-size // grid) * grid
            self.buckets.append(Bucket(members, position, stride, size))
            position += stride * len(members)
        self.size = local(parameters[0]).numel() if self.direct else position
        self.parameters = [m for b in self.buckets for m in b.members]

    def entries(self, size: int) -> int:
        """Return how many numbers of a tensor of ``size`` the segment holds."""
        return size

    def _buffer(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.size, dtype=dtype, device=self.device)

    def _filled(self, name: str, kept: Kept) -> Tensor:
        packs = self.state_dtype == torch.int8
        buffer = self._buffer(self.state_dtype if name in self.powers or not packs else self.wide)
        return buffer.fill_(kept.init) if isinstance(kept.init, float) and kept.init else buffer

    def _pairs(self) -> Iterator[tuple[Tensor, slice]]:
        for bucket in self.buckets:
            yield from zip(bucket.members, bucket.pieces(), strict=True)

    def _take_weights(self) -> None:
        self.moved = not isinstance(self.parameters[0], DTensor)  # the sharding engine keeps pointers into its storage
        self.views = [_own(self.p[piece]).view(local(p).shape) for p, piece in self._pairs()]
        torch._foreach_copy_(self.views, [local(p.detach()) for p in self.parameters])
        if self.moved:
            for parameter, view in zip(self.parameters, self.views, strict=True):
                parameter.data = view
        self._view_gradients()

    def _view_gradients(self) -> None:
        self.g_views = [self.g[piece].view(local(p).shape) for p, piece in self._pairs()]
        self.g_places = [view.data_ptr() for view in self.g_views]

    def _small_states(self, bucket: Bucket) -> None:
        """Make the states that are not per weight: stacked over the bucket, of whole (unsharded) parameters."""
        rows, columns = matrix_shape(bucket.shape)
        sizes = {
            "tensor": (1, 1),
            "row": (rows, 1),
            "column": (1, columns),
            "rows": (rows, rows),
            "columns": (columns, columns),
        }
        for name, kept in self.kept.items():
            if kept.kind in ("weight", "choice"):
                continue
            shape = (len(bucket.members), *sizes[kept.kind])
            value = torch.zeros(shape, dtype=self.wide, device=self.device)
            if kept.init == "identity":
                value += torch.eye(shape[-1], dtype=self.wide, device=self.device)
            elif kept.init:
                value.fill_(kept.init)
            bucket.state[name] = value

    def _expose(self, states: Mapping[Tensor, dict[str, Any]]) -> None:
        """Copy known states in and put views of the buffers in their place."""
        steps = iter(self.step.unbind())
        for bucket in self.buckets:
            for i, (parameter, piece) in enumerate(zip(bucket.members, bucket.pieces(), strict=True)):
                known = dict(states[parameter])
                views = {name: self._view(bucket, name, i, parameter, piece) for name in self.kept}
                blocks = slice(piece.start // BLOCK, -(-piece.stop // BLOCK))
                views |= {name + SCALE: scales[blocks] for name, scales in self.scales.items()}
                for name, value in known.items():
                    if name in views:
                        _fill(views[name], value, name)
                states[parameter].clear()
                states[parameter].update(step=next(steps), **views)

    def _view(self, bucket: Bucket, name: str, i: int, parameter: Tensor, piece: slice) -> Tensor:
        kind = self.kept[name].kind
        if kind == "choice" and self.chosen is not None:
            return self.chosen[piece]
        if kind != "weight":
            whole = bucket.state[name][i]
            return {"tensor": whole[0, 0], "row": whole[:, 0], "column": whole[0]}.get(kind, whole)
        if isinstance(parameter, DTensor):
            return _distributed(self.state[name], piece, parameter)
        return self.state[name][piece].view(parameter.shape)

    @functools.cached_property
    def apart(self) -> list[list[Tensor]]:
        """Weights, and each state per weight, as one tensor per parameter."""
        pairs = list(self._pairs())
        flats = (self.p, *self.state.values())
        return [[flat[piece].view(local(p).shape) for p, piece in pairs] for flat in flats]

    def filled(self) -> list[Bucket]:
        """Return the buckets whose parameters hold any numbers."""
        return [b for b in self.buckets if b.members[0].numel()]

    def ready(self) -> bool:
        """Return whether all parameters have gradients and lie where the segment put them; the gradients are taken up.

        This, once per parameter and step, is what a step costs beyond its kernels: `map` over C functions, no Python loop.
        """
        self.gradients = list(map(GRADIENT, self.parameters))
        self.adopted = self.adopts and all(map(operator.is_, self.gradients, self.g_views)) and self._gradients_in_place()
        if self.adopts and not self.adopted:
            self._view_gradients()  # who writes ``p.grad.data`` takes the view away from the arena
        return (self.adopted or type(None) not in map(type, self.gradients)) and self._in_place()

    def _gradients_in_place(self) -> bool:
        return list(map(Tensor.data_ptr, self.gradients)) == self.g_places

    def _in_place(self) -> bool:
        if not self.moved and not self.direct:
            return True
        own = list(map(local, self.parameters)) if self.sharded else self.parameters
        return list(map(Tensor.data_ptr, own)) == self.places and list(map(Tensor.stride, own)) == self.strides

    def gather(self) -> Tensor:
        """Return the flat gradient; gradients (and sharded weights) that lie elsewhere are copied in."""
        grads = [local(g) for g in self.gradients] if self.sharded else self.gradients
        self.gradients = []
        if self.direct:
            return grads[0].reshape(-1)
        if not self.moved:
            torch._foreach_copy_(self.views, [local(p.detach()) for p in self.parameters])
        if not self.adopted:
            self._copy_in(grads)
        return self.g

    def _copy_in(self, gradients: Sequence[Tensor]) -> None:
        first = 0
        for bucket in self.buckets:
            here = slice(first, first + len(bucket.members))
            bucket.pile(self.g, self.g_views[here], gradients[here], stack=not self.adopts)
            first = here.stop

    def scatter(self) -> None:
        """Copy weights back that could not be moved into the arena."""
        if not self.direct and not self.moved:
            torch._foreach_copy_([local(p.detach()) for p in self.parameters], self.views)

    def adopt_gradients(self) -> None:
        """Make every parameter's ``.grad`` a view of the arena."""
        self.adopts = self.moved
        if self.moved and list(map(Tensor.data_ptr, self.g_views)) != self.g_places:
            self._view_gradients()
        if self.moved:
            for parameter, view in zip(self.parameters, self.g_views, strict=True):
                parameter.grad = view


def _own(piece: Tensor) -> Tensor:
    """Return the same memory as a storage of its own: who saves a model takes parameters of one storage for tied weights."""
    return torch.from_dlpack(piece) if piece.numel() else piece.new_empty(0)


def _fill(view: Tensor, value: Any, name: str) -> None:
    value = torch.as_tensor(value)
    if value.shape != view.shape:
        raise InputError(
            f"the saved state {name!r} has shape {tuple(value.shape)}, this optimizer keeps {tuple(view.shape)}; "
            "load the state of the same optimizer and model"
        )
    if value is not view:
        view.copy_(value)
