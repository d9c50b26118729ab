"""Laws of mechanics, measured quantities, and the verifier that holds clips against them.

Example::

    from visviva.physics import ConstantAcceleration, MotionFloor, Term, Verifier
    from visviva.models.probes import LucasKanade

    verifier = Verifier(LucasKanade(), [Term(ConstantAcceleration()), Term(MotionFloor(least=0.3))])
    verdict = verifier.score(frames, fps)
"""

from visviva.physics.gate import Gate
from visviva.physics.laws import LAWS, ConstantAcceleration, Law, MassConservation, MotionFloor, ReferenceFlow, Residual
from visviva.physics.measurement import Measurement, Probe
from visviva.physics.verify import Term, Verdict, Verifier

__all__ = [
    "LAWS",
    "ConstantAcceleration",
    "Gate",
    "Law",
    "MassConservation",
    "Measurement",
    "MotionFloor",
    "Probe",
    "ReferenceFlow",
    "Residual",
    "Term",
    "Verdict",
    "Verifier",
    "calibration",
]


def calibration(law: str) -> dict:
    """Return the shipped calibration of a law: its values on perfect physics, AUC per violation, noise floor, provenance.

    Raises:
        InputError: no law of that name.
    """
    import json
    from importlib import resources

    from visviva.errors import InputError, closest

    if law not in LAWS:
        raise InputError(f"no law {law!r}; the laws are {', '.join(LAWS)}" + closest(law, LAWS))
    shipped = resources.files("visviva.physics") / "calibration" / f"{law}.json"
    if not shipped.is_file():
        raise InputError(f"the law {law!r} ships no calibration; make one with: visviva calibrate")
    return json.loads(shipped.read_text())
