"""Do muscles help to foretell accelerations? EMG-conditioned against masked EMG on held-out simulated clips, several seeds.

    python benchmarks/biomechanics.py --out benchmarks/results/biomechanics.json
    python benchmarks/biomechanics.py --stride bioptim_gait_emg_grf_tau.npz   # also against recorded EMG envelopes

The data are one set of training and one of test clips; each seed trains encoder and network anew. Intervals resample clips and
seeds. With ``--stride``: drives made from the joint torques of a recorded stride (markers and ground forces, see
`visviva.eval.motion.legs`) against the recorded EMG envelope of every muscle that turns the joint that way, and how often the
drive turned in time does as well. The envelopes are in the order of the muscles of the stride's own model. Six of a leg's ten
differ: both gastrocnemii and the long fibular are one, soleus and posterior tibial are one, the tensor of the fascia is
nothing; one leg's are the other's, half a cycle (53 frames) later. Quadriceps and gluteal muscles are not among them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stride import recorded as of_stride
from torch import Tensor

from visviva.configs.pretrain import BiomechanicsStage
from visviva.data.motions.emg import MUSCLES, activations
from visviva.eval.motion.legs import legs
from visviva.eval.run import provenance
from visviva.eval.statistics import paired_bootstrap
from visviva.models.biomechanics import EMGEncoder
from visviva.models.biomechanics.contrast import effective_rank
from visviva.pipelines.pretrain.biomechanics import Moments, clip_errors, embedded, fit, moments, pretrained, probe
from visviva.pipelines.pretrain.imdy_clips import clips

PAIRS = {
    "hip extensors, semitendinosus": (0, -1, 0),
    "hip extensors, biceps": (0, -1, 1),
    "knee flexors, semitendinosus": (1, -1, 0),
    "knee flexors, biceps": (1, -1, 1),
    "knee flexors, gastrocnemius": (1, -1, 4),
    "plantarflexors, gastrocnemius": (2, -1, 4),
    "plantarflexors, soleus": (2, -1, 6),
    "hip flexors, sartorius": (0, 1, 2),
    "knee flexors, sartorius": (1, -1, 2),
    "dorsiflexors, anterior tibial": (2, 1, 8),
}
"""Joint, sign of the torque, and place of the muscle among the ten of a leg."""
ENVELOPES = {"right": 0, "left": 10}


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12, help="training clips of each action")
    parser.add_argument("--test", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contrast-steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--stride", type=Path)
    parser.add_argument("--stride-only", action="store_true", help="measure the stride alone, and replace it in --out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.stride_only:
        kept = json.loads(given.out.read_text())
        kept |= {"stride": stride(given.stride), "stride_made_with": provenance()}
        given.out.write_text(json.dumps(kept, indent=1) + "\n")
        return
    result: dict[str, Any] = {"settings": settings(given), "made_with": provenance()}
    if given.stride:
        result["stride"] = stride(given.stride)
        print(result["stride"], flush=True)
    train, test = moments(clips(given.clips, 100), 100), moments(clips(given.test, 101), 101)
    stage = BiomechanicsStage(contrast_steps=given.contrast_steps, contrast_batch=96, steps=given.steps)
    rows = [trial(train, test, stage, seed) for seed in range(given.seeds)]
    result["encoders"] = [row.pop("encoder") for row in rows]
    clip = [k for _ in rows for k in range(len(test.signal))]
    seed = [s for s, row in enumerate(rows) for _ in range(len(test.signal))]
    each = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    rivals = [name for name in each if name != "emg"]
    result["against"] = {name: compared(each[name], each["emg"], clip, seed) for name in rivals}
    result["error_of_mean"] = float((train.acceleration.mean(0) - test.acceleration).abs().mean())
    print(json.dumps({k: result[k] for k in ("encoders", "against", "error_of_mean")}, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def settings(given: argparse.Namespace) -> dict[str, str]:
    """The arguments, without where files are."""
    return {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(given).items()}


def trial(train: Moments, test: Moments, stage: BiomechanicsStage, seed: int) -> dict[str, Any]:
    """Return each test clip's error by what the network was told, and what the encoder knows."""
    encoder = pretrained(train, stage, seed)
    net, never = fit(train, encoder, stage, seed), fit(train, encoder, stage, seed, muscles=False)
    told, known = embedded(encoder, test), embedded(encoder, train)
    torch.manual_seed(seed)
    fresh = EMGEncoder(MUSCLES).eval()
    shuffled = told[torch.randperm(len(told), generator=torch.Generator().manual_seed(seed))]
    about = {
        "drive_r2": probe(known, train.drive, told, test.drive),
        "drive_r2_untrained": probe(embedded(fresh, train), train.drive, embedded(fresh, test), test.drive),
        "effective_rank": effective_rank(told),
    }
    print(seed, about, flush=True)
    return {
        "emg": clip_errors(net, test, told),
        "masked": clip_errors(net, test, None),
        "never_told": clip_errors(never, test, None),
        "shuffled": clip_errors(net, test, shuffled),
        "encoder": about,
    }


def compared(before: np.ndarray, after: np.ndarray, clip: list[int], seed: list[int]) -> dict[str, Any]:
    """Return both errors [m/s^2] and the relative change with its interval, positive: muscles help."""
    found = paired_bootstrap(before, after, clip, seed)
    change = found.improvement
    return {"rival": float(before.mean()), "emg": float(after.mean()), "better_by": [change.value, change.low, change.high]}


def stride(path: Path) -> dict[str, Any]:
    """Return how well drives of leg torques explain recorded envelopes, and how often turned ones do as well."""
    markers, wrench, _ = of_stride(path)
    found = legs(markers, float(wrench[..., 8].sum(1).mean()) / 9.81)
    torque, frames = found.torques(100.0, wrench[..., 6:], wrench[..., :3], wrench[..., 3:6], window=0.15)
    recorded = torch.from_numpy(np.load(path, allow_pickle=False)["emg_normalized_exp"].T.copy())[frames.start : frames.stop]
    rows = {}
    for side, leg in enumerate(("left", "right")):
        for what, (joint, sign, muscle) in PAIRS.items():
            one = (sign * torque[:, side, joint]).clamp(min=0)
            drive = activations(one[:, None] / one.max(), 100.0)
            turned = torch.cat([drive.roll(k, 0) for k in (0, *range(8, len(drive) - 8))], -1)
            r = correlation(turned, recorded[:, [ENVELOPES[leg] + muscle]])[:, 0]
            rows[f"{leg} {what}"] = {"r": float(r[0]), "turned_as_good": float((r[1:] >= r[0]).double().mean())}
    return rows


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlations of columns, (n, m)."""
    one, other = (x - x.mean(0) for x in (one, other))
    return (one / one.norm(dim=0)).mT @ (other / other.norm(dim=0))


if __name__ == "__main__":
    main()
