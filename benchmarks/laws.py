"""Table and plot of the laws' shipped calibrations, from their JSON.

    python benchmarks/laws.py --images docs/images

prints the markdown tables that stand in docs/laws.md, and which bars are missed, and draws docs/images/laws.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from visviva.errors import InputError
from visviva.physics import LAWS, calibration

BAR = 0.95
"""Least AUC by estimated measurement, but for `LOWER`; by true measurement it is 0.99."""

LOWER = {"energy_gain": 0.85, "wrong_spin": 0.85}
BASE = 128
"""Side of the sweeps' images [px] that are shown in one table."""

GROUPS = ("resolution", "frame_rate", "compression")
BLUE, AMBER, GREY = "#2456d6", "#d98a00", "#8a909c"


def shipped() -> dict[str, dict[str, Any]]:
    """Return the calibrations that ship, by law."""
    found = {}
    for name in LAWS:
        try:
            found[name] = calibration(name)
        except InputError as missing:
            print(f"no calibration: {missing}")
    return found


def default(table: dict[str, Any]) -> dict[str, Any]:
    """Return the law's default form."""
    return next(iter(table["variants"].values()))


def declared(side: dict[str, Any]) -> dict[str, float]:
    """Return the AUC of each declared violation."""
    return {name: row["auc"] for name, row in side["violations"].items() if row["declared"]}


def missed(tables: dict[str, dict[str, Any]]) -> list[str]:
    """Return the bars that are not reached, of default forms."""
    told = []
    for name, table in tables.items():
        for side, bars in (("true", {}), ("estimated", LOWER)):
            for violation, area in declared(default(table)[side]).items():
                area = default(table)[side]["violations"][violation].get("judged_auc", area)
                if area < (bar := bars.get(violation, BAR if side == "estimated" else 0.99)):
                    told.append(f"{name}, {violation} by {side} measurement: {area:.3f} < {bar}")
        if "alarm" in default(table)["estimated"] and default(table)["estimated"]["alarm"]["false_alarms"] > 0.05:
            told.append(f"{name}: false alarms {default(table)['estimated']['alarm']['false_alarms']:.3f} > 0.05")
    return told


def short(area: float) -> str:
    """Return an AUC with two digits, three close to 1, and 1 where nothing was confused."""
    return "1" if area == 1 else f"{area:.{3 if area > 0.985 else 2}f}".removeprefix("0")


def judged(row: dict[str, Any]) -> str:
    """Return an AUC, and where the law does not judge all clips, which then count as 0, that of those it does."""
    if "judged" not in row:
        return short(row["auc"])
    return f"{short(row['auc'])} ({short(row['judged_auc'])} of the {100 * row['judged']:.0f} % it judges)"


def held(row: dict[str, Any]) -> str:
    """Return the 95 % interval of an AUC below 1."""
    if row["auc"] == 1 or "interval" not in row:
        return ""
    return f" [{', '.join(short(x) for x in row['interval'])}]"


def rows(tables: dict[str, dict[str, Any]]) -> str:
    """Return one line per law: scenes, clips, floor, alarm, AUC by true / estimated measurement."""
    lines = [
        "| law | scenes (clips) | p95 on perfect physics, true / estimated | alarm: false alarms on the true clips [95 %] "
        "| AUC true / estimated [95 %] (detected by the alarm) |",
        "|---|---|---|---|---|",
    ]
    for name, table in tables.items():
        true, estimated = (default(table)[side] for side in ("true", "estimated"))
        if "alarm" not in estimated:
            continue
        alarm = estimated["alarm"]
        both = {
            name: " / ".join(judged(side["violations"][name]) for side in (true, estimated)) for name in declared(estimated)
        }
        told = ", ".join(
            f"{violation.replace('_', ' ')} {both[violation]}"
            f"{held(estimated['violations'][violation])} "
            f"({100 * alarm['detected'].get(violation, float('nan')):.0f} %)"
            for violation in declared(estimated)
        )
        low, high = alarm["interval"]
        lines.append(
            f"| `{name}` | {', '.join(table['scenes'])} ({table['clips']}) | {true['floor']:.2g} / {estimated['floor']:.2g} | "
            f"> {alarm['threshold']:.2g}: {100 * alarm['false_alarms']:.1f} % [{100 * low:.0f}, {100 * high:.0f}] of "
            f"{alarm['clips']} | {told} |"
        )
    return "\n".join(lines)


def sweeps(tables: dict[str, dict[str, Any]]) -> str:
    """Return one line per law and violation: AUC at each setting of the sweeps."""
    swept = {name: table["robustness"] for name, table in tables.items() if "robustness" in table}
    swept = {name: found for name, found in swept.items() if found["base"]["size"] == BASE}
    if not swept:
        return "no sweeps"
    known = {(group, setting): None for found in swept.values() for group in GROUPS for setting in found.get(group, {})}
    settings = sorted(known, key=lambda pair: (GROUPS.index(pair[0]), size(pair[1])))
    lines = ["| law: violation (clips) | " + " | ".join(column(*setting) for setting in settings) + " |"]
    lines.append("|---" * (len(settings) + 1) + "|")
    for name, found in swept.items():
        for violation in first_violations(found):
            cells = [
                short(found[group][setting]["auc"][violation]) if setting in found.get(group, {}) else ""
                for group, setting in settings
            ]
            clips = found["resolution"]["x1"]["clips"]
            lines.append(f"| `{name}`: {violation.replace('_', ' ')} ({clips}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def column(group: str, setting: str) -> str:
    """Return the heading of a setting: pixels, frames per second, compression."""
    if group == "compression":
        return setting
    return f"{BASE * size(setting):g} px" if group == "resolution" else f"{32 * size(setting):g} fps"


def size(setting: str) -> float:
    """Return the factor that a setting such as x0.5 stands for, 1 for others."""
    return float(setting[1:]) if setting.startswith("x") else 1.0


def first_violations(found: dict[str, Any]) -> list[str]:
    """Return the violations that every setting has."""
    cells = [cell["auc"] for group in GROUPS for cell in found.get(group, {}).values()]
    return [name for name in cells[0] if all(name in cell for cell in cells)]


def picture(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the AUC of every declared violation, and how it falls with errors of the measurement."""
    pairs = [(n, v) for n, t in tables.items() for v in declared(default(t)["true"])]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 0.2 * len(pairs) + 1.2), width_ratios=[1.25, 1], layout="constrained"
    )
    for place, (name, violation) in enumerate(pairs):
        true, estimated = (declared(default(tables[name])[side])[violation] for side in ("true", "estimated"))
        left.plot([true, estimated], [place, place], color=GREY, lw=1)
        left.plot(true, place, "o", mfc="white", mec=BLUE, ms=6)
        left.plot(estimated, place, "o", color=BLUE, ms=4)
    left.set_yticks(range(len(pairs)), [f"{n}: {v}".replace("_", " ") for n, v in pairs], fontsize=7)
    left.invert_yaxis()
    left.axvline(0.95, color=AMBER, lw=0.8)
    left.set_xlim(0.45, 1.01)
    left.set_title("AUC: true (ring) and estimated (dot) measurement", fontsize=9, loc="left")
    for name, table in tables.items():
        noise = table.get("robustness", {}).get("noise", {})
        violations = next(iter(noise.values()))["auc"] if noise else {}
        for violation in list(violations)[:1] if violations else ():
            errors = [float(error) for error in noise]
            right.plot(
                errors,
                [row["auc"][violation] for row in noise.values()],
                "o-",
                ms=3,
                label=f"{name}: {violation}".replace("_", " "),
            )
    right.set_xscale("log")
    right.set_xlabel("error added to the true measurement [px]")
    right.set_ylim(0.45, 1.02)
    right.set_title("AUC under noise", fontsize=9, loc="left")
    right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.grid(color="#d8dce3", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    tables = shipped()
    told = [
        rows(tables),
        "Estimated AUC of the swept violations (128 x 128 pixels, 17 frames at 32 fps, grain, unless said otherwise):",
        sweeps(tables),
        *(f"missed: {line}" for line in missed(tables)),
    ]
    print("\n\n".join(told))
    picture(tables, given.images / "laws.png")


if __name__ == "__main__":
    main()
