"""Running VBench's motion dimensions on clips: flicker exactly, the others with the estimators at hand, uncalibrated."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from visviva.errors import InputError
from visviva.eval.benchmarks import vbench
from visviva.eval.benchmarks.encoders import called, frame_encoder
from visviva.eval.benchmarks.inputs import Inputs, failed, scene
from visviva.eval.benchmarks.result import UNCALIBRATED, ClipRow, Result, frame_change, mean_score, motion_score
from visviva.eval.collection import Item
from visviva.models.probes.dis import DIS

VERSION = vbench.VERSION
STANDING = UNCALIBRATED
NEEDS = "clips; --encoder, the folder of a local ViT (DINO ViT-B/16 as published) for subject consistency"
NOTES = {
    "temporal_flicker": "exact; the benchmark scores clips that are meant to be static",
    "motion_smoothness": "odd frames predicted along a flow by {flow} (published: AMT-S)",
    "dynamic_degree": "share of clips that move, by {flow} (published: RAFT). Read it beside the other three",
    "subject_consistency": "cosine of frame features by {encoder} (published: DINO ViT-B/16)",
}


def run(inputs: Inputs, probe: Any = None) -> Result:
    """Measure the four dimensions; ``probe`` is the flow (default `DIS`), ``inputs.encoder`` a ViT's folder or a function."""
    flow, encoder = DIS() if probe is None else probe, frame_encoder(inputs.encoder)
    rows = [_measured(item, flow, encoder) for item in tqdm(inputs.items(), desc="vbench-motion")]
    told = {"flow": called(flow), "encoder": called(encoder)}
    scores = [
        mean_score(m, rows, "1", lower_is_better=False, note=note.format(**told), statistics=inputs.statistics, within=(0, 1))
        for m, note in NOTES.items()
    ]
    notes = ["a frozen clip has perfect flicker, smoothness and consistency: dynamic degree and motion stand beside them"]
    return Result("vbench-motion", VERSION, STANDING, [*scores, motion_score(rows, inputs.statistics)], rows, {}, notes)


def _measured(item: Item, probe: Any, encoder: Any) -> ClipRow:
    try:
        clip = item.clip()
        numbers = {
            "temporal_flicker": vbench.temporal_flicker(clip.frames),
            "motion_smoothness": vbench.motion_smoothness(clip.frames, vbench.along_flow(probe)),
            "dynamic_degree": float(vbench.dynamic_degree(clip.frames, clip.fps, probe)),
            "subject_consistency": vbench.subject_consistency(encoder(clip.frames).cpu()),
        }
    except InputError as error:
        return failed(item, error)
    return ClipRow(item.key, scene(item), numbers, frame_change(clip.frames))
