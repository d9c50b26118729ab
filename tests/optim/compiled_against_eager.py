"""Prints the distance of compiled from eager trajectories, by optimizer, as JSON; run by test_optimizers_contract."""

import json
import sys

sys.path.insert(0, ".")

from trajectories import SHAPES, parameters, set_gradients

import visviva.optim as optim
from visviva.optim.chain import _COMPILED, compiler_found


def run(name, compile, adopt=False):
    params = parameters((*SHAPES, (6, 8), ()))
    optimizer = getattr(optim, name)(params, lr=0.01, compile=compile, adopt=adopt, extra=[optim.MomentumReset(7)])
    for step in range(1, 13):
        if step == 6:
            for key, value in optimizer.defaults.items():
                if isinstance(value, float) and value and key != "density":
                    optimizer.param_groups[0][key] = 0.8 * value
                elif key == "betas":
                    optimizer.param_groups[0][key] = tuple(0.9 * b for b in value)
        set_gradients(params, step)
        optimizer.step()
    return params


found = {"compiler": compiler_found("cpu")}
if found["compiler"]:
    for name in sys.argv[1:]:
        pairs = zip(run(name, False), run(name, True, adopt=name == "AdamW"), strict=True)
        found[name] = max((a - b).abs().max().item() for a, b in pairs)
found["programs"] = len(_COMPILED)
sys.stdout.write(json.dumps(found) + "\n")
