"""Parts of a clip's card that several reports share: its title, how fast its film plays, its maps, what the localiser says."""

from __future__ import annotations

from collections.abc import Sequence

from visviva.eval import pictures, plots
from visviva.eval.newtonbench import ClipScore
from visviva.eval.page import Page
from visviva.eval.run import Picture


def evenly(clips: list[ClipScore], count: int) -> list[ClipScore]:
    """Return up to ``count`` of the clips, the first and the last among them."""
    if len(clips) <= count:
        return clips
    return [clips[round(i * (len(clips) - 1) / max(1, count - 1))] for i in range(count)]


def named(primitive: str, split: str) -> str:
    """Return what a group of clips is called."""
    return f"{primitive.replace('_', ' ')} {split.upper()}".strip() or "all"


def title(clip: ClipScore) -> str:
    """Return what a clip's card is called."""
    return " · ".join(part for part in (clip.primitive.replace("_", " "), clip.split.upper(), clip.key) if part)


def located(page: Page, picture: Picture) -> None:
    """Say what the laws that apply leave, and where the localiser sees a break."""
    if picture.laws:
        page.paragraph(f"Residuals of the laws that apply (0 is perfect): {picture.laws}.", "note")
    if "evidence" in picture.maps:
        page.figure(
            plots.rendered(plots.evidence(picture.maps["evidence"].numpy()), 10.5, 1.1),
            "Where the violation localiser sees the clip break physics, frame by frame; above the line: more than 95 % of true "
            "clips ever show. It knows free motion; a contact looks like a break to it.",
        )


def slow(fps: float) -> float:
    """Return a playback rate at which short clips can be followed by eye [1/s]."""
    return min(fps, 10.0)


def maps(page: Page, clips: Sequence[Picture], names: Sequence[str] = ()) -> None:
    """Add frames, optical flow and the residual of constant acceleration of the clips that have them, one above the other."""
    known = [
        pictures.Maps(c.maps.get("frames", c.frames), c.maps["flow"], c.maps.get("field")) for c in clips if "flow" in c.maps
    ]
    if known:
        who = f"{' above, '.join(names)} below: " if len(known) > 1 else ""
        what = "frames, optical flow (hue: direction, saturation: speed), residual of constant acceleration (black: none)"
        page.image(pictures.sheet(pictures.map_rows(known)), who + what)
