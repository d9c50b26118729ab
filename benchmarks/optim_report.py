"""Plots and markdown tables of the optimizer benchmarks, from their JSON.

    python benchmarks/optim_report.py --results benchmarks/results --images docs/images

reads ``optim-claims.json``, ``optim-gpt.json`` and ``optim-wan.json`` (those that are there) and prints the tables.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MATRIX = ("muon", "root", "namo", "namo_d", "fismo", "torch_muon")


def number(row: dict[str, Any] | None, digits: int = 3, sign: str = "") -> str:
    """Return mean and half-width."""
    if row is None:
        return "not run"
    if row["mean"] is None:
        return f"diverged ({row['failed']} of {row['n']})"
    half = "" if row["half_width"] is None else f" ± {row['half_width']:.{digits}f}"
    return f"{row['mean']:{sign}.{digits}f}{half}"


def training_table(report: dict[str, Any], digits: int) -> str:
    """Return the table of a training comparison, best first."""
    lines = [
        "| Optimizer | Rate (tried) | ms/update | Validation, same updates | minus AdamW | Training "
        "| Updates in AdamW's seconds | Validation, same seconds | minus AdamW |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = report["methods"].items()
    for name, m in sorted(rows, key=lambda r: r[1]["same_steps"]["validation"]["mean"] or 1e9):
        same, equal = m["same_steps"], m.get("same_seconds")
        tried = ", ".join(m["tried"]) or "of the other"
        cells = [
            f"`{name}`",
            f"{m['lr']:g} ({tried})",
            f"{m['ms_per_update']:.0f}",
            number(same["validation"], digits),
            number(same["minus_adamw"], digits, "+"),
            number(same["training"], digits),
            str(m["steps_in_equal_seconds"]),
            number(equal and equal["validation"], digits),
            number(equal and equal["minus_adamw"], digits, "+"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def training_plot(report: dict[str, Any], path: Path, unit: str) -> None:
    """Draw final validation losses (same updates, same seconds) and how sensitive each method is to its rate."""
    rows = sorted(report["methods"].items(), key=lambda r: -(r[1]["same_steps"]["validation"]["mean"] or 1e9))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.32 * len(rows) + 1.6), layout="constrained")
    for y, (_, m) in enumerate(rows):
        for kind, shift, colour, label in (
            ("same_steps", 0.12, "C0", "same updates"),
            ("same_seconds", -0.12, "C1", "same seconds"),
        ):
            row = m.get(kind, {}).get("validation")
            if row and row["mean"] is not None:
                left.errorbar(
                    row["mean"],
                    y + shift,
                    xerr=row["half_width"],
                    fmt="o",
                    ms=4,
                    capsize=3,
                    color=colour,
                    label=label if not y else None,
                )
    left.set_yticks(range(len(rows)), [n for n, _ in rows])
    base = report["methods"]["adamw"]["same_steps"]["validation"]["mean"]
    left.axvline(base, color="0.7", lw=0.8, zorder=0)
    left.set_xlabel(f"validation loss, {unit}: mean and 95 % interval of 3 seeds")
    handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    left.legend(handles.values(), handles.keys(), fontsize=8)
    shown = [r for r in reversed(rows) if len(r[1]["tried"]) > 1]
    for i, (name, m) in enumerate(shown):
        points = [(float(r) / m["lr"], v) for r, v in m["tried"].items() if v is not None]
        style = "-" if name in MATRIX else "--"
        right.plot(*zip(*sorted(points), strict=True), style, marker=".", color=plt.cm.tab20(i % 20), label=name)
    right.set_xscale("log")
    right.set_xlabel("learning rate over the method's best (solid: orthogonalized)")
    right.set_ylabel("validation loss, seed 0")
    right.legend(fontsize=7, ncol=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def claims_table(report: dict[str, Any]) -> str:
    """Return the table of all small claims."""
    lines = ["| Group | Claim | Card | Measured | Verdict |", "|---|---|---|---|---|"]
    for group, found in report["groups"].items():
        for c in found["claims"]:
            if c.get("ratio") is not None:
                measured = f"ratio {c['ratio']:.3g} [{c['interval'][0]:.3g}, {c['interval'][1]:.3g}]"
            else:
                measured = ", ".join(f"{k} {v:.3g}" for k, v in c.get("numbers", {}).items())
            lines.append(f"| {group} | {c['claim']} | {c['paper'] or '-'} | {measured} | {c['verdict']} |")
    return "\n".join(lines)


def arms_table(report: dict[str, Any]) -> str:
    """Return the table of all arms: geometric mean, its interval, the rate."""
    lines = ["| Group | Arm | Mean of 10 seeds, 95 % interval | Best rate |", "|---|---|---|---|"]
    for group, found in report["groups"].items():
        for arm, row in found["arms"].items():
            if row.get("geometric"):
                g, f = row["geometric"], row["factor"]
                value = f"{g:.3g} [{g / f:.3g}, {g * f:.3g}]"
            else:
                value = "-" if row["mean"] is None else f"{row['mean']:.4g}"
            lr = row.get("lr")
            edge = " (edge of the grid)" if lr and lr in (row["rates"][0], row["rates"][-1]) else ""
            lines.append(f"| {group} | {arm} | {value} | {f'{lr:g}' if lr else '-'}{edge} |")
    return "\n".join(lines)


def claims_plot(report: dict[str, Any], path: Path) -> None:
    """Draw the ratio of every paired comparison with its interval."""
    rows = [(g, c) for g, found in report["groups"].items() for c in found["claims"] if c.get("ratio") is not None]
    rows = [(g, c) for g, c in rows if c["ratio"] > 1e-6 and c["ratio"] < 1e6][::-1]
    figure, axes = plt.subplots(figsize=(10, 0.27 * len(rows) + 1.2), layout="constrained")
    colours = {"reproduced": "C2", "opposite": "C3", "not reproduced": "0.5"}
    for y, (_, c) in enumerate(rows):
        low, high = c["interval"]
        axes.plot([low, high], [y, y], color=colours[c["verdict"]])
        axes.plot(c["ratio"], y, "o", ms=4, color=colours[c["verdict"]])
    axes.set_yticks(range(len(rows)), [f"{g}: {c['claim']}" for g, c in rows], fontsize=8)
    axes.axvline(1, color="0.7", lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("ratio, mean and 95 % interval of 10 paired seeds; below 1 the claim holds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", default="benchmarks/results")
    options.add_argument("--images", default="docs/images")
    given = options.parse_args()
    results, images = Path(given.results), Path(given.images)
    for name, digits in (("gpt", 3), ("wan", 4)):
        if (results / f"optim-{name}.json").is_file():
            report = json.loads((results / f"optim-{name}.json").read_text())
            training_plot(report, images / f"optim-{name}.png", "nats per character" if name == "gpt" else "flow matching")
            print(f"\n{name}\n\n{training_table(report, digits)}")
    if (results / "optim-claims.json").is_file():
        report = json.loads((results / "optim-claims.json").read_text())
        claims_plot(report, images / "optim-claims.png")
        print(f"\n{claims_table(report)}\n\n{arms_table(report)}")


if __name__ == "__main__":
    main()
