"""What clips are worth: metrics, benchmark protocol, statistics, real-video measurement, reports.

Every number comes as a `Score`: value, unit, direction, fps, normalising length, and the share of frames it was taken from.
"""

from visviva.eval.score import Score

__all__ = ["Score"]
