"""How the kernels of dynamics are run: a thread per state, in parts, on a processor or a GPU.

Memory for intermediate numbers does not grow with the number of states. On a processor as many threads work as torch may use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
import warp as wp
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, SHAPES, Body
from visviva.physics.dynamics.links import KIND, kind

REAL = {torch.float32: wp.float32, torch.float64: wp.float64}
CHUNK = {"cpu": 256, "cuda": 2**18}
"""States that are worked on at once: their intermediate numbers fit the cache of a core, or fill a GPU."""


def check(body: Body, dtype: torch.dtype, what: str, *more: str) -> None:
    """Raise an `InputError` for what the kernels cannot.

    Args:
        body: the tree.
        dtype: of the states.
        what: the routine, for the message.
        more: tensors of the body, besides its links' and gravity, that the kernels have no gradients of.

    Raises:
        InputError: another dtype than float32 and float64, or a body that asks for gradients.
    """
    if dtype not in REAL:
        raise InputError(f"states in {dtype}; Warp's {what} takes float32 and float64: convert, or method='torch'")
    asked = [getattr(body, name) for name in (*SHAPES, "gravity", *more)]
    if any(tensor is not None and tensor.requires_grad for tensor in asked):
        raise InputError(f"the body's tensors ask for gradients; Warp's {what} has those of states only: method='torch'")


def tensors_of(body: Body, *more: str) -> list[Tensor]:
    """Return the body's tensors, to be saved for the backward pass: torch then refuses if they were changed in between."""
    return [tensor for name in (*SHAPES, "gravity", *more) if (tensor := getattr(body, name)) is not None]


def part(states: Tensor) -> int:
    """Return how many states are worked on at once."""
    return min(CHUNK[states.device.type], len(states))


def launched(program: Any, states: Tensor, inputs: Callable[[], tuple[list[Any], list[Tensor]]]) -> None:
    """Run a kernel on all states, a part of them at a time.

    Args:
        program: whose first argument is the index of the part's first state.
        states: any tensor of all states, for their number and device.
        inputs: makes the kernel's other arguments, with intermediate numbers of `part` states, and the tensors that must live
            until it is done; called once for each thread.
    """
    size = part(states)
    starts = list(range(0, len(states), max(size, 1)))

    def work(mine: list[int]) -> None:
        given, kept = inputs()
        for start in mine:
            dim = min(size, len(states) - start)
            wp.launch(program, dim=dim, inputs=[start, *given], device=wp.device_from_torch(states.device))
        del kept

    if not starts:
        return
    if states.is_cuda:
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(states.device))):
            work(starts)
        return
    wp.load_module(program.module, device="cpu")
    threads = min(torch.get_num_threads(), len(starts))
    if threads == 1:
        work(starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[k::threads] for k in range(threads)]))


def scratch(struct: Any, shapes: Mapping[str, tuple[int, ...]], body: Body, like: Tensor) -> tuple[Any, list[Tensor]]:
    """Return intermediate numbers and their tensors: a state's together on a processor, those of neighbours on a GPU."""
    found, kept, states = struct(), [], part(like)
    for name, shape in shapes.items():
        if like.is_cuda:
            kept.append(like.new_empty(len(body), states, *shape).transpose(0, 1))
        else:
            kept.append(like.new_empty(states, len(body), *shape))
        setattr(found, name, wp.from_torch(kept[-1], dtype=kind(shape, REAL[like.dtype]), requires_grad=False))
    return found, kept


def links_of(struct: Any, body: Body, like: Tensor) -> Any:
    """Return the body as the kernels take it."""
    found = struct()
    for name, numbers in _tree(body.parents, body.joints, str(like.device)).items():
        setattr(found, name, numbers)
    for name, shape in SHAPES.items():
        tensor = getattr(body, name).detach().to(like).contiguous()
        setattr(found, name, wp.from_torch(tensor, dtype=kind(shape, REAL[like.dtype]), requires_grad=False))
    found.gravity = kind((3,), REAL[like.dtype])(*body.down.tolist())
    return found


@lru_cache(maxsize=64)
def _tree(parents: tuple[int, ...], joints: tuple[str, ...], device: str) -> dict[str, Any]:
    """Parents, kinds of joints, and where each joint's numbers begin."""
    first_q, first_v = ([sum(JOINTS[j][k] for j in joints[:i]) for i in range(len(joints))] for k in (0, 1))
    whole = {"parent": list(parents), "kind": [KIND[j] for j in joints], "first_q": first_q, "first_v": first_v}
    return {name: wp.array(numbers, dtype=int, device=wp.device_from_torch(device)) for name, numbers in whole.items()}
