"""The trained localiser: measured clips in; how likely each clip breaks physics somewhere, and in which frames, out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from visviva.errors import InputError
from visviva.models.localiser.attention import AttentionMIL
from visviva.models.localiser.windows import NAMES, Windows, windows_of
from visviva.models.network_file import located, opened
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class Located:
    """What the localiser says of B clips of T frames.

    Attributes:
        logit: that the clip breaks physics somewhere, shape (B,).
        evidence: of each frame, shape (B, T): mean logit of the windows around it, of the object that stands out most; minus
            infinity in frames that no window covers (at most ``stride`` - 1 at the end), of which nothing is known.
        broken: frames whose evidence is above the level that 95 % of true clips never reach, shape (B, T), bool.
    """

    logit: Tensor
    evidence: Tensor
    broken: Tensor


class Localiser:
    """A trained `AttentionMIL` on the windows of `windows_of`, with the level that true clips stay below.

    It tells *where* a clip is unlike the true clips it was trained on; what is wrong, and by how much, is for the laws to say.
    It sees objects through their masks, so it wants a measurement with masks (and flow).

    Example::

        measured = Combined(LucasKanade(), masks=TrackedMasks())(frames, fps, first_masks)
        Localiser.load("localiser")(measured).broken  # (B, T), True where physics breaks
    """

    def __init__(self, network: AttentionMIL, level: float, length: int = 6, stride: int = 2) -> None:
        self.network, self.level, self.length, self.stride = network.eval(), level, length, stride

    @torch.no_grad()
    def __call__(self, measured: Measurement) -> Located:
        """Locate the breaks of a batch of measured clips; on the device of the measurement.

        Raises:
            InputError: a clip shorter than a window, without any object, or with a measurement that is not finite.
        """
        windows = windows_of(measured, self.length, self.stride)
        if not bool(windows.there.any(1).all()):
            raise InputError("a clip shows no object in any frame; give clips with objects' masks")
        network = self.network.to(windows.values.device)
        return self.read(network, windows)

    def read(self, network: AttentionMIL, windows: Windows) -> Located:
        """Return what the network says of windows that are already made."""
        bag = network(windows.values, windows.there)
        evidence = windows.per_frame(bag.evidence)
        return Located(bag.logit, evidence, evidence > self.level)

    def save(self, path: str | Path) -> None:
        """Write weights and settings to one safetensors file."""
        about = {"level": self.level, "length": self.length, "stride": self.stride, "features": list(NAMES)}
        about |= {"width": self.network.embed.out_features, "hidden": self.network.inner.out_features}
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(state, str(path), metadata={"localiser": json.dumps(about)})

    @classmethod
    def load(cls, source: str | Path = "localiser") -> Localiser:
        """Load the shipped localiser (``"localiser"``) or one from a safetensors file.

        Raises:
            InputError: no such file, not a localiser, or one trained on other window features.
        """
        path = located(source, "localiser")
        state, about = opened(path, "localiser", "localiser")
        if about.get("features") != list(NAMES):
            raise InputError(f"{path}: was trained on other window features; train it again with this version")
        try:
            network = AttentionMIL(len(NAMES), int(about["width"]), int(about["hidden"]))
            network.load_state_dict(state)
            return cls(network, float(about["level"]), int(about["length"]), int(about["stride"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: its settings or weights do not fit a localiser ({error}); train it again") from error
