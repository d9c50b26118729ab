"""The momentum core: transforms, the optimizers made of them, and averages of weights (torch only)."""

from visviva.optim.adabelief import AdaBelief
from visviva.optim.adamp import SGDP, AdamP
from visviva.optim.adamw import AdamW
from visviva.optim.adan import Adan
from visviva.optim.adaptive_memory import AMMSGD, AMAdamW
from visviva.optim.exadam import EXAdam
from visviva.optim.fismo import FISMO
from visviva.optim.gradient import Cautious, ClipGlobalNorm, MomentumReset, SoftClip, SpikeClip, WarmupAfterReset
from visviva.optim.lion import Lion, LionK
from visviva.optim.moments import Ema, HeavyBall, Nesterov, RmsDivide, SecondMoment
from visviva.optim.muon import Muon
from visviva.optim.namo import NAMO, NAMOD
from visviva.optim.optimizer import ChainOptimizer, chain
from visviva.optim.root import ROOT
from visviva.optim.sai import SGDSaI
from visviva.optim.sgd import SGDM
from visviva.optim.spam import SPAM
from visviva.optim.transform import Kept, Step, Transform
from visviva.optim.weights import L2, Apply

BY_NAME: dict[str, type[ChainOptimizer]] = {
    "adamw": AdamW,
    "sgdm": SGDM,
    "spam": SPAM,
    "adabelief": AdaBelief,
    "exadam": EXAdam,
    "adan": Adan,
    "adamp": AdamP,
    "sgdp": SGDP,
    "lion": Lion,
    "lion_k": LionK,
    "sgd_sai": SGDSaI,
    "am_msgd": AMMSGD,
    "am_adamw": AMAdamW,
    "muon": Muon,
    "root": ROOT,
    "namo": NAMO,
    "namo_d": NAMOD,
    "fismo": FISMO,
}
"""The optimizers by the names that recipes use."""

__all__ = [
    "BY_NAME",
    "AMMSGD",
    "FISMO",
    "L2",
    "NAMO",
    "NAMOD",
    "ROOT",
    "SGDM",
    "SGDP",
    "SPAM",
    "AMAdamW",
    "AdaBelief",
    "AdamP",
    "AdamW",
    "Adan",
    "Apply",
    "Cautious",
    "ChainOptimizer",
    "ClipGlobalNorm",
    "EXAdam",
    "Ema",
    "HeavyBall",
    "Kept",
    "Lion",
    "LionK",
    "MomentumReset",
    "Muon",
    "Nesterov",
    "RmsDivide",
    "SGDSaI",
    "SecondMoment",
    "SoftClip",
    "SpikeClip",
    "Step",
    "Transform",
    "WarmupAfterReset",
    "chain",
]
