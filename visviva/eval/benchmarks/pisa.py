"""PISA (arXiv 2503.09595): how far a dropped object is from where it really fell: trajectory L2, Chamfer distance, IoU.

The three metrics agree with the published code on golden numbers (`visviva.eval.trajectory`; its "L2" is a mean absolute
coordinate error, so the Euclidean one stands beside it). Frames without the object are dropped from the means as published,
which flatters clips whose object vanishes: ``lost`` is the share dropped, and benchmark ``newtonbench`` penalises it.

The published masks come from SAM 2 with clicked points; here the true first-frame masks are followed through the clip, so the
numbers compare runs, not with the paper's table. With masks of your own, `numbers` is the published metric. A clip is compared
as far as it goes, as published: ``covered`` says how much of its truth that is.
"""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from visviva.eval.benchmarks.inputs import Inputs
from visviva.eval.benchmarks.newtonbench import NEEDS as NEEDS
from visviva.eval.benchmarks.newtonbench import beside, means, row, scored
from visviva.eval.benchmarks.result import UNCALIBRATED, Result
from visviva.eval.newtonbench import score_clip

VERSION = "1"
STANDING = UNCALIBRATED
TRIO = ("l2_pisa", "chamfer", "iou", "l2")


def numbers(masks: Bool[Tensor, "T H W"], true: Bool[Tensor, "S H W"], fps: float, true_fps: float) -> dict[str, float]:
    """Return the published three, the Euclidean ``l2`` and the share of frames ``lost`` of one object.

    Predicted frame k is paired with reference frame ``int(k true_fps / fps)``; lengths are in image diagonals, sqrt(2) H.

    Example::

        numbers(sam_masks, true_masks, 16.0, 120.0)["l2_pisa"]
    """
    score = score_clip(masks[:, None], true[:, None], fps, true_fps)
    return {m: score.as_coded[m].value for m in TRIO} | {"lost": score.lost}


def run(inputs: Inputs) -> Result:
    """Score clips against their true clips, paired by scene."""
    scores = scored(inputs)
    rows = [row(s, {m: s.score.as_coded[m].value for m in TRIO}) for s in scores]
    notes = ["masks are followed from the true first frame, not SAM 2's: compare runs, not with the published table"]
    notes.append("frames without the object are dropped, as published: read 'lost' beside the distances")
    if any(len(frame) > 1 for s in scores for frame in s.score.true_track[:1]):
        notes.append("of several objects the mean is taken; the published code scores the dropped one only")
    return Result("pisa", VERSION, STANDING, means(TRIO, rows, inputs) + beside(rows, inputs), rows, {}, notes)
