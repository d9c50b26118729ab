"""The momentum core: transforms, the optimizers made of them, and averages of weights (torch only)."""

from visviva.optim.adabelief import AdaBelief
from visviva.optim.adamp import SGDP, AdamP
from visviva.optim.adamw import AdamW
from visviva.optim.adan import Adan
from visviva.optim.adaptive_memory import AMMSGD, AMAdamW
from visviva.optim.diagnostics import SpikeLog, UpdateRecorder
from visviva.optim.eco import eco
from visviva.optim.exadam import EXAdam
from visviva.optim.fismo import FISMO
from visviva.optim.gradient import Cautious, ClipGlobalNorm, MomentumReset, SoftClip, SpikeClip, WarmupAfterReset
from visviva.optim.lanczos import HessianProduct, LanczosLearner, spectral_density
from visviva.optim.lion import Lion, LionK
from visviva.optim.mkor import MKOR, MKORH
from visviva.optim.moments import Ema, HeavyBall, Nesterov, RmsDivide, SecondMoment
from visviva.optim.muon import Muon
from visviva.optim.namo import NAMO, NAMOD
from visviva.optim.optimizer import ChainOptimizer, chain
from visviva.optim.quantized import QuantizedTensor
from visviva.optim.quantizer import FP8, Int, Lattice
from visviva.optim.refactorize import LowRankRestart, lora_pairs, quick_recovery, reset_momentum
from visviva.optim.root import ROOT
from visviva.optim.sai import SGDSaI
from visviva.optim.scaling import scale_lr
from visviva.optim.sgd import SGDM
from visviva.optim.spam import SPAM
from visviva.optim.sparse import SparseMomentum
from visviva.optim.switch_off import SwitchOff
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
    "AMMSGD",
    "BY_NAME",
    "FISMO",
    "FP8",
    "L2",
    "MKOR",
    "MKORH",
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
    "HessianProduct",
    "Int",
    "Kept",
    "LanczosLearner",
    "Lattice",
    "Lion",
    "LionK",
    "LowRankRestart",
    "MomentumReset",
    "Muon",
    "Nesterov",
    "QuantizedTensor",
    "RmsDivide",
    "SGDSaI",
    "SecondMoment",
    "SoftClip",
    "SparseMomentum",
    "SpikeClip",
    "SpikeLog",
    "Step",
    "SwitchOff",
    "Transform",
    "UpdateRecorder",
    "WarmupAfterReset",
    "chain",
    "eco",
    "lora_pairs",
    "quick_recovery",
    "reset_momentum",
    "scale_lr",
    "spectral_density",
]
