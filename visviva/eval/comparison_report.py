"""The comparison of two runs in a report: what changed, with intervals, and the clips side by side."""

from __future__ import annotations

import math

from visviva.eval import pictures, plots
from visviva.eval.cards import evenly, maps, named, slow, title
from visviva.eval.comparison import Group, paired
from visviva.eval.explanation import explain
from visviva.eval.page import Page
from visviva.eval.run import Run

NOTHING = "No clip was scored in both runs, so nothing can be compared."


def big(group: Group) -> tuple[str, str]:
    """Return a group's average improvement as a large number and what to say of it."""
    gain = group.improvement
    span = "" if math.isnan(gain.low) else f"95 % interval {gain.low:+.1%} to {gain.high:+.1%}; "
    return f"{gain.value:+.1%}", f"{group.split.upper() or 'all clips'}, {span}{group.verdict}"


def lead(groups: list[Group]) -> str:
    """Return the outcome in a sentence per split."""
    said = [g.sentence for g in groups if g.primitive == "all"] if groups else [NOTHING]
    return " ".join(s[0].upper() + s[1:] for s in said)


def section(page: Page, groups: list[Group], before: str, after: str) -> None:
    """Add what changed: in words, as figures and as a table."""
    page.heading(f"What changed from {before} to {after}")
    if not groups:
        page.paragraph(NOTHING)
        return
    for group in groups:
        page.paragraph(group.sentence[0].upper() + group.sentence[1:])
    page.paragraph(
        "Improvement is the change of a metric's mean relative to its mean before, averaged over the five metrics; positive is "
        "better. Clips are paired by scene and whole scenes are resampled; an interval that includes zero is called "
        "not significant. Where objects move markedly less than before, a better velocity, acceleration or "
        "average is not credited.",
        "note",
    )
    page.figure(plots.rendered(plots.improvements(groups), 8.5, 0.9 + 0.34 * len(groups)), "average over the five metrics")
    overall = [g for g in groups if g.primitive == "all"]
    if overall:
        page.figure(plots.rendered(plots.metric_changes(overall), 3.2 + 2.6 * len(overall), 2.3), "metric by metric")
    body: list[list[str | tuple[str, str]]] = []
    for group in groups:
        for metric, comparison in group.metrics.items():
            gain = comparison.improvement
            span = "" if math.isnan(gain.low) else f"{gain.low:+.1%} to {gain.high:+.1%}"
            means = [f"{x.value:.3g}" for x in (comparison.before, comparison.after)]
            name = named(group.primitive, group.split)
            body.append([name, plots.METRIC[metric], *means, (f"{gain.value:+.1%}", span), group.verdicts[metric]])
        if group.motion is not None:
            name, means = named(group.primitive, group.split), [f"{x:.2f}" for x in (group.motion_before, group.motion_after)]
            body.append([name, "motion (share of the true path)", *means, "-", "markedly less" if group.slowed else ""])
    page.table(["primitive", "metric", before, after, "improvement", "verdict"], body)


def side_by_side(page: Page, before: Run, after: Run, shown: int) -> None:
    """Add cards of clips whose pictures both runs carry, from most improved to most worsened."""
    pairs = [(b, a) for b, a in paired(before, after) if b.key in before.pictures and a.key in after.pictures]
    if not pairs:
        return
    pairs.sort(key=lambda pair: pair[1].penalised["l2"].value - pair[0].penalised["l2"].value)
    partners = {a.key: b for b, a in pairs}
    page.heading("Side by side")
    page.paragraph(
        f"From most improved to most worsened, chosen evenly. Films: {before.name} | {after.name} | truth, slowed down.", "note"
    )
    for clip in evenly([a for _, a in pairs], shown):
        partner = partners[clip.key]
        old, new = before.pictures[partner.key], after.pictures[clip.key]
        true = new.true if new.true is not None else old.true
        page.open_card(title(clip))
        page.film(pictures.film([old.frames, new.frames, *([true] if true is not None else [])], slow(clip.fps)), clip.caption)
        page.paragraph(f"{before.name}: {explain(partner)}")
        page.paragraph(f"{after.name}: {explain(clip)}")
        page.figure(plots.rendered(plots.motion([(before.name, partner), (after.name, clip)]), 10.5, 2.4))
        maps(page, [old, new], [before.name, after.name])
        page.close_card()
