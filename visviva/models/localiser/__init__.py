"""The violation localiser: which seconds of a clip break physics, learned from clip labels alone.

A clip is a bag of windows (`windows`), attention pools them (`AttentionMIL`), and masked hard-instance mining
(`Mining`) keeps the attention from resting on the most blatant window only.
"""

from visviva.models.localiser.attention import AttentionMIL, Bag
from visviva.models.localiser.masking import Masking
from visviva.models.localiser.mining import Mining, fit

__all__ = ["AttentionMIL", "Bag", "Masking", "Mining", "fit"]
