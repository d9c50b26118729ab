"""A motion pipeline of a few thousand random weights, whose read-outs are not zero."""

import torch
from diffusers import DDIMScheduler

from visviva.data.actions import draw
from visviva.models.motion.text import WordEncoder
from visviva.models.motion.transformer import MotionTransformer
from visviva.pipelines.motion.pipeline import MotionPipeline
from visviva.pipelines.motion.steering import features_of


def tiny_pipeline(words):
    """Return a pipeline that knows these words, with the statistics of a walk and 50 steps of noise."""
    torch.manual_seed(0)
    network = MotionTransformer(width=16, layers=1, text_width=8, templates=8, hidden=32)
    with torch.no_grad():
        for p in network.parameters():
            if not bool(p.any()):
                p.normal_(0, 0.05)
    rows = features_of(draw(["walk"], seed=0, fps=20.0, seconds=2.0).joints, 20.0)[0]
    network.set_statistics(rows.mean(0), rows.std(0).clamp(min=0.05))
    steps = DDIMScheduler(50, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    return MotionPipeline(network.eval(), WordEncoder(words, width=8).eval(), steps)
