"""Muon: momentum orthogonalized by Newton-Schulz (Jordan 2024; Moonlight, arXiv 2502.16982), and its family's shared parts.

Muon is for the hidden matrices of a network; everything else goes to AdamW in the same optimizer. Which is which is read from
the parameters' names (`hidden_matrix`): pass ``model.named_parameters()``. Without names every parameter of two and more
dimensions counts as hidden, which is wrong for embeddings and heads.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from visviva.errors import InputError
from visviva.optim.moments import Ema, HeavyBall, Nesterov, RmsDivide, SecondMoment
from visviva.optim.newton_schulz import SCHEDULES, orthogonalize
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Step, Transform, choose
from visviva.optim.weights import Apply

NOT_HIDDEN = re.compile(
    r"(^shared|(^|[._])(\w*embed\w*|emb\w*|patch\w*|pos|pos_\w*|positional\w*|wte|wpe|tokens?|time_(in|proj)\w*"
    r"|text_proj\w*|caption_proj\w*|context_refiner|ada(ln|_ln|norm)\w*|modulation|scale_shift_table|norm\w*|head|lm_head|classifier|final\w*"
    r"|logit\w*))([.]|$)"
)
"""Names of what is no hidden matrix in (diffusion) transformers: embedders, modulation, norms, heads."""

ENDS = re.compile(r"^(?!.*\.\d+\.)(.*\.)?proj_(in|out)([.]|$)")
"""First and last projections; within a numbered block (Flux's single blocks) these names are hidden matrices."""

ShapeScale = Literal["none", "original", "rms", "spectral"]


def hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a hidden matrix: two or more dimensions, and no embedder, modulation, norm or head by name.

    LoRA factors count as hidden wherever they sit.

    >>> import torch
    >>> names = ("blocks.0.attn1.to_q.weight", "single_transformer_blocks.0.proj_out.weight", "proj_out.weight")
    >>> [hidden_matrix(name, torch.zeros(8, 8)) for name in names]
    [True, True, False]
    """
    if parameter.ndim < 2 or min(parameter.shape) == 0 or max(parameter.shape) == parameter.numel():
        return False
    return ".lora_" in name or not (NOT_HIDDEN.search(name) or ENDS.search(name))


def shape_scale(kind: ShapeScale, rows: int, columns: int) -> float:
    """Return the factor of an orthogonal update: ``original`` ``sqrt(max(1, rows/columns))``, ``rms`` (Moonlight, so that
    AdamW's rates carry over) ``0.2 sqrt(max(rows, columns))``, ``spectral`` (dion) ``sqrt(rows/columns)``."""
    factors = {"none": 1.0, "original": math.sqrt(max(1.0, rows / columns)), "spectral": math.sqrt(rows / columns)}
    return 0.2 * math.sqrt(max(rows, columns)) if kind == "rms" else factors[kind]


@dataclass(frozen=True)
class Orthogonalize(Transform):
    """``u <- scale(rows, columns) polar(u)`` of every matrix.

    ``schedule``: a name of `visviva.optim.newton_schulz.SCHEDULES`, ``svd``, or coefficients; ``blocks``: row blocks that are
    orthogonalized apart (3 for a fused query-key-value matrix).
    """

    batched: ClassVar = True
    schedule: Any = "standard"
    scale: ShapeScale = "original"
    blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        known_schedule(self.schedule)

    def __call__(self, x: Step) -> None:  # type: ignore[override]
        k, rows, columns = x.u.shape
        if rows % self.blocks:
            raise InputError(f"a matrix of {rows} rows cannot be cut into {self.blocks} blocks; correct 'split'")
        cut = x.u.reshape(k * self.blocks, rows // self.blocks, columns)
        factor = shape_scale(self.scale, *cut.shape[1:])
        x.u = orthogonalize(cut, self.schedule_for(rows, columns)).mul_(factor).reshape(x.u.shape)

    def schedule_for(self, rows: int, columns: int) -> Any:
        """Return the schedule of a shape."""
        return self.schedule


class MatrixOptimizer(ChainOptimizer):
    """An optimizer for hidden matrices with AdamW for the rest.

    Groups may set ``algorithm``: ``auto`` (by `hidden_matrix`), ``matrix`` or ``adamw`` for all of their parameters.
    ``split``: row blocks by name pattern, such as ``{"qkv": 3}``.
    """

    COPIED: ClassVar[tuple[str, ...]] = (*ChainOptimizer.COPIED, "split")
    OTHERS: ClassVar[dict[str, Any]] = dict(
        adamw_ratio=1.0, adamw_betas=(0.9, 0.95), adamw_eps=1e-8, adamw_weight_decay=None, algorithm="auto"
    )

    def __init__(
        self, params: Any, defaults: Mapping[str, Any], split: Mapping[str, int] | None = None, **options: Any
    ) -> None:
        for pattern, blocks in (split or {}).items():
            if not (isinstance(blocks, int) and blocks >= 1):
                raise InputError(f"split cuts {pattern!r} into {blocks!r} blocks; allowed are whole numbers from 1 on")
        self.split = {re.compile(pattern): blocks for pattern, blocks in (split or {}).items()}
        others = {name: options.pop(name, value) for name, value in self.OTHERS.items()}
        super().__init__(params, {**defaults, **others}, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; matrices without names are warned of, as nothing tells an embedding from a hidden matrix."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if "param_names" not in group and group["algorithm"] == "auto" and any(p.ndim > 1 for p in group["params"]):
            warnings.warn(
                f"{type(self).__name__} is given matrices without names and takes all for hidden ones, embeddings too; "
                "pass model.named_parameters(), or groups with algorithm='matrix' or 'adamw'",
                stacklevel=4,
            )

    def route(self, group: Mapping[str, Any], name: str, parameter: Tensor) -> str:
        """Return ``adamw``, or ``matrix`` with the number of row blocks."""
        if group["algorithm"] not in ("auto", "matrix", "adamw"):
            raise InputError(f"a group's algorithm is {group['algorithm']!r}; allowed are auto, matrix, adamw")
        chosen = group["algorithm"]
        if chosen == "adamw" or (chosen == "auto" and not hidden_matrix(name, parameter)) or parameter.ndim < 2:
            return "adamw"
        blocks = [b for pattern, b in self.split.items() if pattern.search(name)]
        return f"matrix {blocks[0] if blocks else 1}"

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return the matrix chain, or AdamW's."""
        if kind != "adamw":
            return self.matrix_chain(group, int(kind.split()[1]))
        (b1, b2), ratio, wd = group["adamw_betas"], group["adamw_ratio"], group["adamw_weight_decay"]
        decay = group["weight_decay"] if wd is None else wd
        return [Ema(b1), SecondMoment(b2), RmsDivide(group["adamw_eps"]), Scale(ratio), Apply(decay * ratio)]

    def matrix_chain(self, group: Mapping[str, Any], blocks: int) -> list[Transform]:
        """Return the chain of hidden matrices."""
        raise NotImplementedError


@dataclass(frozen=True)
class Scale(Transform):
    """``u <- factor u``."""

    ranges: ClassVar = {"factor": (0.0, math.inf)}
    factor: float = 1.0

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"factor": self.factor}

    def __call__(self, x: Step, factor: Tensor) -> None:  # type: ignore[override]
        x.u = factor * x.u


def momentum(group: Mapping[str, Any]) -> list[Transform]:
    """Return the momentum of a group: an average, or the undamped heavy ball (``undamped``), with Nesterov's look-ahead."""
    mu = group["momentum"]
    if group.get("undamped"):
        return [HeavyBall(mu, nesterov=group["nesterov"], name="exp_avg")]
    return [Ema(mu), Nesterov(mu)] if group["nesterov"] else [Ema(mu)]


def known_schedule(schedule: Any) -> Any:
    """Return a schedule, or raise an `InputError` for an unknown name or what is no coefficients."""
    if isinstance(schedule, str) and schedule in (*SCHEDULES, "svd"):
        return schedule
    triples = isinstance(schedule, tuple | list) and all(isinstance(c, tuple | list) and len(c) == 3 for c in schedule)
    if not triples or not schedule or not all(isinstance(v, int | float) for c in schedule for v in c):
        raise InputError(f"schedule is {schedule!r}; allowed are {', '.join(SCHEDULES)}, svd, or (a, b, c) per iteration")
    return tuple(tuple(c) for c in schedule)


class Muon(MatrixOptimizer):
    """``M <- mu M + (1-mu) g``; ``U = (1-mu) g + mu M`` (Nesterov) or M; ``p <- p (1 - lr wd) - lr s polar(U)``.

    Args:
        params: named parameters, best; parameters or groups.
        lr: 0.02 with ``scale="original"`` (Jordan); AdamW's rates with ``scale="rms"`` (Moonlight, MuonRec here).
        momentum, nesterov, weight_decay: hyper-parameters.
        schedule: Newton-Schulz coefficients (`visviva.optim.newton_schulz.orthogonalize`), ``svd`` for the exact factor.
        scale: `shape_scale`.
        undamped: ``M <- mu M + g`` (Jordan's code): the same update, another size of M.
        options: ``adamw_ratio`` (their rate over lr), ``adamw_betas``, ``adamw_eps``, ``adamw_weight_decay`` (None: the same)
            of the other parameters, ``split``, and those of `ChainOptimizer`.

    Example::

        optimizer = Muon(model.named_parameters(), lr=1e-3, scale="rms", weight_decay=0.1)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        schedule: Any = "standard",
        scale: ShapeScale = "original",
        undamped: bool = False,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        super().__init__(params, defaults | dict(schedule=known_schedule(schedule), scale=scale, undamped=undamped), **options)

    @classmethod
    def rec(cls, params: Any, lr: float = 1e-3, **options: Any) -> Muon:
        """Return the MuonRec preset (arXiv 2603.00416: Muon for 2-D weights, Adam for the rest, in recommenders).

        The paper's partition, scale and rates were not found; `hidden_matrix` and ``scale="rms"`` are this project's choice.
        """
        return cls(params, lr=lr, scale="rms", **options)

    def matrix_chain(self, group: Mapping[str, Any], blocks: int) -> list[Transform]:
        """Return Ema, Nesterov?, Orthogonalize, Apply."""
        scale = choose("Muon: scale", group["scale"], "none", "original", "rms", "spectral")
        polar = Orthogonalize(group["schedule"], scale, blocks)
        return [*momentum(group), polar, Apply(group["weight_decay"])]
