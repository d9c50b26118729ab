"""Print as JSON, for each law of "flow" or "tracks", "equal" if it gives in one compiled graph what it gives in eager mode.

Contacts are given, except to the law of angular momentum, for which they are found. The laws of flow and features are compiled
with their backward passes; those of tracks, which are long, without.
"""

import json
import sys

import torch
from all_measured import FORMS, LEAVES, measured


def compared(law):
    seen = measured(law, contact=law.name != "angular_momentum")
    leaves = {key: getattr(seen, key) for key in LEAVES}

    def said(leaves):
        residual = law(seen.with_(**leaves))
        return residual.value, residual.valid, residual.sigma

    torch._dynamo.reset()
    backend = "eager" if "tracks" in law.needs else "aot_eager"
    found, wanted = torch.compile(said, fullgraph=True, backend=backend)(leaves), said(leaves)
    for name, one, two in zip(("value", "valid", "sigma"), found, wanted, strict=True):
        if not torch.allclose(one.float(), two.float(), rtol=1e-4, atol=1e-6, equal_nan=True):
            return f"{name}: {one.tolist()} for {two.tolist()}"
    if not wanted[0].requires_grad:
        return "no gradient"
    gradients = [torch.autograd.grad(out[0].sum(), list(leaves.values()), allow_unused=True) for out in (found, wanted)]
    for name, one, two in zip(LEAVES, *gradients, strict=True):
        one, two = (leaves[name].new_zeros(1) if x is None else x for x in (one, two))
        if not torch.allclose(one, two, rtol=1e-3, atol=1e-5 * float(two.abs().max())):
            return f"gradient of {name}"
    return "equal"


if __name__ == "__main__":
    torch.set_num_threads(1)
    laws = [law for law in FORMS if ("tracks" in law.needs) == (sys.argv[1] == "tracks")]
    sys.stdout.write(json.dumps({repr(law): compared(law) for law in laws}))
