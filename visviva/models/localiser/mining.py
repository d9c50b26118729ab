"""Masked hard-instance mining (MHIM-MIL, Tang et al., ICCV 2023, arXiv 2307.15254), re-implemented from its description.

A momentum teacher looks at the whole bag; what it finds easiest (and random others) is hidden from the student, which must
find the label in the rest. ``L = BCE(student logit, label) + consistency * L_con`` with
``L_con = - sum softmax(z_T / 0.1) log softmax(z_S)``, the soft cross-entropy between pooled features (Section 3.3).
The teacher follows by `visviva.optim.TeacherEMA`. The journal version's (arXiv 2509.11526) global
recycle network is not taken over. Differences: bags come in padded batches instead of one by one, and the head has one
logit instead of two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.localiser.attention import AttentionMIL
from visviva.models.localiser.masking import Masking
from visviva.optim import AdamW
from visviva.optim.teacher import Constant, TeacherEMA


@dataclass(frozen=True)
class Mining:
    """How a localiser is trained.

    Attributes:
        masking: what the student does not see; without any, the training is plain attention MIL.
        rank: windows are ranked by the teacher's ``attention`` (v1) or class-aware ``likelihood`` (v2).
        consistency: weight of L_con; 0 leaves it out.
        temperature: of the teacher's feature in L_con; the student's is 1.
        decay: of the teacher.
        epochs, batch, lr, weight_decay: of AdamW with a cosine to zero.

    Example::

        student = fit(windows, there, labels, Mining(Masking(random=0.5, high=0.03)), seed=0)
    """

    masking: Masking = field(default_factory=Masking)
    rank: str = "attention"
    consistency: float = 0.1
    temperature: float = 0.1
    decay: float = 0.99
    epochs: int = 60
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse a ranking that is not there."""
        if self.rank not in ("attention", "likelihood"):
            raise InputError(f"windows cannot be ranked by {self.rank!r}; use 'attention' or 'likelihood'")


def fit(
    windows: Float[Tensor, "M N D"],
    there: Bool[Tensor, "M N"],
    labels: Float[Tensor, " M"],
    mining: Mining = Mining(),
    seed: int = 0,
    start: AttentionMIL | None = None,
    width: int = 64,
) -> AttentionMIL:
    """Train a localiser on M bags with labels 0 (obeys physics) and 1 (breaks it somewhere), and return the student.

    With masking the teacher starts from ``start``, a localiser trained without (made here where not given), of which the
    student copies the first layer only, as published. Reproducible by seed; on the device of the windows.

    Raises:
        InputError: labels of one kind only.
    """
    if len(labels.unique()) < 2:
        raise InputError("all bags have the same label; a localiser needs clips that break physics and clips that do not")
    hidden = mining.masking.hides
    if hidden and start is None:
        start = fit(windows, there, labels, Mining(epochs=mining.epochs, batch=mining.batch, lr=mining.lr), seed, width=width)
    generator = torch.Generator().manual_seed(seed)
    student = _fresh(windows, there, width, seed + 1 if hidden else seed)
    teacher = ema = None
    if hidden and start is not None:
        student.embed.load_state_dict(start.embed.state_dict())
        teacher = copy.deepcopy(start).train().requires_grad_(False)
        ema = TeacherEMA(start, Constant(mining.decay))
    optimizer = AdamW(student.parameters(), lr=mining.lr, weight_decay=mining.weight_decay)
    steps = mining.epochs * -(-len(labels) // mining.batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    step = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(mining.epochs):
            for chosen in torch.randperm(len(labels), generator=generator).split(mining.batch):
                loss = _loss(student, teacher, windows[chosen], there[chosen], labels[chosen], mining, generator, step / steps)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                falling.step()
                if teacher is not None and ema is not None:
                    ema.update(student)
                    ema.copy_to(teacher)
                step += 1
    return student.eval()


def _fresh(windows: Tensor, there: Tensor, width: int, seed: int) -> AttentionMIL:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = AttentionMIL(windows.shape[-1], width).to(windows.device)
    student.standardise(windows, there)
    return student.train()


def _loss(
    student: AttentionMIL,
    teacher: AttentionMIL | None,
    windows: Tensor,
    there: Tensor,
    labels: Tensor,
    mining: Mining,
    generator: torch.Generator,
    progress: float,
) -> Tensor:
    """Return the loss of a batch of bags; the student sees the windows that are not hidden."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    if teacher is None:
        return entropy(student(windows, there).logit, labels)
    with torch.no_grad():
        whole = teacher(windows, there)
        ranked = whole.attention if mining.rank == "attention" else teacher.likelihood(whole)
    hidden = mining.masking.hide(ranked, there, generator, progress)
    seen = student(windows, there & ~hidden)
    target = torch.softmax(whole.feature / mining.temperature, dim=1)
    consistency = -(target * torch.log_softmax(seen.feature, dim=1)).sum(1).mean()
    return entropy(seen.logit, labels) + mining.consistency * consistency
