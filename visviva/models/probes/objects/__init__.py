"""Objects of a clip: which pixels are theirs, which one is which, where they are to a fraction of a pixel; and points."""

from visviva.models.probes.objects.components import components, regions
from visviva.models.probes.objects.ground import Ground, ground
from visviva.models.probes.objects.identity import Identity, bi_softmax
from visviva.models.probes.objects.look import look, pooled
from visviva.models.probes.objects.points import Points, cotracker, grid_queries, tapir, track_points
from visviva.models.probes.objects.positions import object_tracks, visible
from visviva.models.probes.objects.probe import Objects
from visviva.models.probes.objects.sam2 import SAM2Masks
from visviva.models.probes.objects.segmentation import Moving

__all__ = [
    "Ground",
    "Identity",
    "Moving",
    "Objects",
    "Points",
    "SAM2Masks",
    "bi_softmax",
    "components",
    "cotracker",
    "grid_queries",
    "ground",
    "look",
    "object_tracks",
    "pooled",
    "regions",
    "tapir",
    "track_points",
    "visible",
]
