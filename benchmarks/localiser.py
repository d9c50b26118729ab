"""Does masked hard-instance mining find what plain attention overlooks? Planted vectors and rendered clips, with both controls.

    python benchmarks/localiser.py --output benchmarks/results/localiser.json

Training bags hold blatant and subtle violations, test bags subtle ones only (for the rendered clips see
`visviva.pipelines.pretrain.lapsed`). Arms: plain attention MIL; random masking with the teacher's consistency; masking of the
most attended windows (MHIM-MIL) at three shares; class-aware ranking. Each arm over several seeds of weights and order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from optim_sweep import interval
from torch import Tensor

from visviva.eval.reading import auc
from visviva.eval.run import provenance, write_json
from visviva.models.localiser import AttentionMIL, Masking, Mining, fit
from visviva.pipelines.pretrain.lapsed import bags, drawn
from visviva.pipelines.pretrain.localiser import check

ARMS = {
    "plain attention": None,
    "random": Mining(Masking(random=0.5)),
    "random + top 5 % of 10 % (MHIM)": Mining(Masking(random=0.5, high=0.05, high_drawn=0.5)),
    "top 10 %": Mining(Masking(high=0.1)),
    "top 30 %": Mining(Masking(high=0.3)),
    "random + top 5 %, class-aware": Mining(Masking(random=0.5, high=0.05), rank="likelihood"),
}


def planted(count: int, blatant: int, subtle: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bags of 40 windows of 24 normal numbers; every second one holds blatant windows (off by 6) and subtle ones (2.5)."""
    generator = torch.Generator().manual_seed(seed)
    windows, labels = torch.randn(count, 40, 24, generator=generator), (torch.arange(count) % 2).float()
    for i in range(1, count, 2):
        places = torch.randperm(40, generator=generator)
        windows[i, places[:blatant], 0] += 6
        windows[i, places[blatant : blatant + subtle], 1] += 2.5
    return windows, torch.ones(count, 40, dtype=torch.bool), labels


def separation(net: AttentionMIL, windows: Tensor, there: Tensor, labels: Tensor) -> float:
    """Return the AUC of bag logits."""
    with torch.no_grad():
        logit = net(windows, there).logit
    return auc(logit[labels == 0], logit[labels > 0])


def arms(
    train: tuple[Tensor, Tensor, Tensor], seeds: int, measure: Callable[[AttentionMIL], dict[str, float]]
) -> dict[str, dict]:
    """Train every arm with every seed; masked arms start from the plain one of their seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        plain = fit(*train, Mining(), seed)
        for name, mining in ARMS.items():
            net = plain if mining is None else fit(*train, mining, seed, start=plain)
            found.setdefault(name, []).append(measure(net))
            print(seed, name, found[name][-1], flush=True)
    return {
        n: {k: {**interval([r[k] for r in rows]), "values": [r[k] for r in rows]} for k in rows[0]} for n, rows in found.items()
    }


def main() -> None:
    """Run both experiments and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/localiser.json")
    options.add_argument("--clips", type=int, default=200)
    options.add_argument("--seeds", type=int, default=4)
    given = options.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    test = planted(400, 0, 5, 1000)
    vectors = arms(planted(200, 2, 5, 0), given.seeds, lambda net: {"auc_subtle": separation(net, *test)})
    train, subtle, both = (
        bags(drawn(clips, seed, frames=41), seed, blatant, subtle)
        for clips, seed, blatant, subtle in ((given.clips, 1, 1, 3), (given.clips, 2, 0, 2), (given.clips // 2, 3, 1, 3))
    )

    def measure(net: AttentionMIL) -> dict[str, float]:
        numbers = check(net, subtle, float("inf"))
        whole = separation(net, both.windows, both.there, both.labels)
        return {"auc_subtle": numbers["clip_auc"], "auc_blatant_and_subtle": whole, "auc_windows": numbers["window_auc"],
                "frames_hit": numbers["frames_hit"], "frames_hit_by_chance": numbers["frames_hit_by_chance"]}  # fmt: skip

    rendered = arms((train.windows, train.there, train.labels), given.seeds, measure)
    report = {
        "command": f"python benchmarks/localiser.py --clips {given.clips} --seeds {given.seeds}",
        "made_with": provenance(),
        "seconds": round(time.perf_counter() - start, 1),
        "planted": vectors,
        "rendered": rendered,
    }
    write_json(Path(given.output), report)


if __name__ == "__main__":
    main()
