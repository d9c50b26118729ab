"""One thing that speaks against a clip as a record of mechanics, and all of them together: a verdict with a score in [0, 1].

The score is ``1 / (1 + sum of w (1 + 0.3 ln s))`` over the findings, w the weight of its kind and s >= 1 how many times it
exceeds what is tolerated. Contacts (``is struck``) are no violation and count once, however many there are. Names and weights
are ours; they are made to put a real recording before broken versions of the same experiment, not to compare different
experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHTS = {
    "cuts": 3.0,
    "vanishes": 2.5,
    "duplicates": 2.5,
    "changes size": 2.0,
    "changes look": 1.5,
    "background changes": 2.5,
    "jumps": 2.0,
    "skips time": 1.5,
    "freezes": 2.0,
    "changes speed": 1.5,
    "stops dead": 2.0,
    "floats": 2.0,
    "is pushed": 1.0,
    "is struck": 0.1,
    "jitters": 2.0,
    "wobbles": 2.0,
    "runs backwards": 1.5,
    "wrong rate": 1.5,
    "no law": 2.0,
    "is lost": 1.0,
}


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against a clip: its name, how many times it exceeds what is tolerated, where, and in words."""

    name: str
    strength: float
    frame: int | None
    sentence: str

    @property
    def cost(self) -> float:
        """Return what it takes off the score."""
        return WEIGHTS[self.name] * (1 + 0.3 * math.log(max(self.strength, 1.0)))


@dataclass(frozen=True)
class Verdict:
    """All findings of a clip, the heaviest first; ``untold`` is what cannot be told of it, in words."""

    findings: list[Finding]
    untold: str = ""

    @property
    def score(self) -> float:
        """Return the score in [0, 1]; 1 if nothing was found."""
        strikes = [f.cost for f in self.findings if f.name == "is struck"]
        return 1 / (1 + max(strikes, default=0.0) + sum(f.cost for f in self.findings if f.name != "is struck"))

    @property
    def sentence(self) -> str:
        """Return in one sentence why the clip scored as it did, and in a second one what it does not tell."""
        untold = f" {self.untold}" if self.untold else ""
        if not self.findings:
            return f"Scored 1.00: nothing was found that mechanics forbids.{untold}"
        said = [f.sentence for f in self.findings[:3]]
        more = f"; and {len(self.findings) - 3} more" if len(self.findings) > 3 else ""
        return f"Scored {self.score:.2f}, because {'; '.join(said)}{more}.{untold}"
