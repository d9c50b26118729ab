"""Biomechanics for motion diffusion: an EMG encoder, a modified Euler-Lagrange network, and the consistency of accelerations.

Reconstructed: of BioMoDiffuse (arXiv 2503.06151) only the abstracts and a digest could be read (card: motion, section 2).

Example::

    from visviva.models.biomechanics import EulerLagrange, acceleration, acceleration_loss

    loss = acceleration_loss(net(position, velocity, emg), acceleration(clean, fps), weight=alpha_bar)
"""

from visviva.models.biomechanics.consistency import Residual, acceleration, acceleration_loss
from visviva.models.biomechanics.contrast import Augmentation, Contrast, contrast_loss, effective_rank, koleo
from visviva.models.biomechanics.emg import EMGEncoder
from visviva.models.biomechanics.euler_lagrange import EulerLagrange, physical_acceleration

__all__ = [
    "Augmentation",
    "Contrast",
    "EMGEncoder",
    "EulerLagrange",
    "Residual",
    "acceleration",
    "acceleration_loss",
    "contrast_loss",
    "effective_rank",
    "koleo",
    "physical_acceleration",
]
