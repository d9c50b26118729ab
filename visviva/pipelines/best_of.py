"""Best of N: several clips from different noise for each one that is kept, ranked by the laws; nothing is trained.

A candidate's score is the verifier's ``log_reward``: minus the weighted residuals, and `visviva.physics.verify.UNMEASURED` less
for every law that could not be measured, so a clip that hides its object does not win. Laws that a frozen clip satisfies must
stand beside an anchor, as in training. Of equal candidates the first is kept, which is the clip that would be made without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.errors import InputError

Score = Callable[[Tensor], Tensor]
"""Clips (B, T, 3, H, W) to what they are ranked by, (B,); higher is better."""


def best_of(
    candidates: Iterable[Float[Tensor, "B T 3 H W"]], score: Score, *, ahead: bool = False
) -> tuple[Float[Tensor, "B T 3 H W"], Float[Tensor, "N B"], Int[Tensor, "B"]]:
    """Return the best candidate of each clip, all scores, and which candidate it is.

    Candidates are taken one after another, so memory holds two, however many there are, and three where the next one is made
    ``ahead``, while a thread judges the last. Then neither may use a network that the other uses and that keeps a state, as
    Wan's autoencoder does.

    Raises:
        InputError: no candidate, or a score that is not a number.

    Example::

        frames, scores, chosen = best_of((sample(noise) for noise in noises), lambda x: verifier.score(x, fps).log_reward)
    """
    kept: Tensor | None = None
    scores: list[Tensor] = []
    best = chosen = torch.empty(0)
    for k, (frames, given) in enumerate(judged(candidates, score, ahead)):
        found = given.detach().cpu().double()
        if bool(found.isnan().any()):
            raise InputError(f"the laws give candidate {k} no number; look at best.laws and best.probe")
        scores.append(found)
        if kept is None:
            kept, best, chosen = frames.clone(), found, torch.zeros(len(frames), dtype=torch.long)
            continue
        better = found > best
        kept[better.to(kept.device)] = frames[better.to(frames.device)]
        best, chosen = torch.where(better, found, best), torch.where(better, k, chosen)
    if kept is None:
        raise InputError("no candidate to choose from; give best.of 1 or more")
    return kept, torch.stack(scores), chosen


def judged(candidates: Iterable[Tensor], score: Score, ahead: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every candidate with its scores; ``ahead``: a thread finds them while the next candidate is made."""
    if not ahead:
        yield from ((frames, score(frames)) for frames in candidates)
        return
    with ThreadPoolExecutor(1) as judge:
        last: tuple[Tensor, Future[Tensor]] | None = None
        for frames in candidates:
            if last is not None:
                yield last[0], last[1].result()
            last = frames, judge.submit(score, frames)
        if last is not None:
            yield last[0], last[1].result()
