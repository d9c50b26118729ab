"""What laws cost beside their arithmetic: memory linear in the frames, no wait for the device, no graph break."""

import json
import subprocess
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from all_measured import FORMS, LEAVES, measured
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visviva.models.probes import FlowNetwork, LucasKanade
from visviva.physics import ConstantAcceleration, MotionFloor, Term, Verifier
from visviva.physics import verify as verifying
from visviva.physics.laws.law import finite
from visviva.physics.motions import draw

every_law = pytest.mark.parametrize("law", FORMS, ids=lambda law: f"{law.name} {getattr(law, 'form', '')}".strip())


def judged(law, seen):
    """Value, valid, sigma, and gradients of the value where it has some."""
    residual = law(seen)
    leaves = [getattr(seen, key) for key in LEAVES]
    grads = torch.autograd.grad(residual.value.sum(), leaves, allow_unused=True)
    return [residual.value, residual.valid.float(), residual.sigma, *[g for g in grads if g is not None]]


class Watched(TorchDispatchMode):
    """Notes the operations whose values or sizes Python would have to wait for on a GPU."""

    SIZES = frozenset({"nonzero", "masked_select", "repeat_interleave", "_unique2", "unique_dim", "unique_consecutive"})
    VALUES = frozenset({"_local_scalar_dense", "equal", "is_nonzero", "_linalg_check_errors", "_linalg_eigh"})

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        picks = tree_leaves(args[1]) if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in self.SIZES | self.VALUES or any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in picks):
            self.noted.append(name)
        return func(*args, **(kwargs or {}))


WAITS_FOR = {"friction": "_linalg_eigh", "gravity_direction": "_linalg_eigh", "pendulum": "_linalg_eigh"}
"""Laws that wait for a GPU, once or twice: eigenvalues of a small matrix per track, whose status cuSOLVER tells the host."""


@every_law
@pytest.mark.parametrize("contact", [True, False], ids=["contact given", "contact found"])
def test_a_law_does_not_wait_for_the_device_forward_or_backward(law, contact):
    seen = measured(law, contact=contact)
    with Watched() as watched:
        judged(law, seen)
    assert set(watched.noted) <= {WAITS_FOR.get(law.name)}
    assert len(watched.noted) <= 2


def test_the_watch_sees_what_it_is_for():
    with Watched() as watched:
        x = torch.ones(3)
        float(x.sum())
        x[x > 0]
        torch.linalg.inv(torch.eye(2))
        torch.where(x > 0)
    assert watched.noted == ["_local_scalar_dense", "index", "_linalg_check_errors", "nonzero"]


@every_law
def test_a_law_runs_where_nothing_can_be_looked_at(law):
    """Tensors of the meta device have no data: what copies them to the host or branches on them raises."""
    seen = measured(law, contact=False)._each(lambda x: x.detach().to("meta"))
    seen = seen.with_(**{key: getattr(seen, key).requires_grad_() for key in LEAVES})
    assert all(x.device.type == "meta" for x in judged(law, seen))


PROBES = pytest.mark.parametrize("probe", [LucasKanade(), FlowNetwork()], ids=lambda probe: probe.name)
TERMS = [Term(ConstantAcceleration()), Term(MotionFloor(least=0.5))]


@PROBES
def test_a_verifier_looks_once_at_the_frames_and_never_again(probe):
    """The one look is the error message for frames that are not in [0, 1]."""
    drawn = draw("falls", 2, seed=3, size=32).render()
    frames = drawn.frames.requires_grad_()
    with Watched() as watched:
        Verifier(probe, TERMS)(frames, torch.full((2,), 32.0), drawn.masks).loss.sum().backward()
    assert watched.noted == ["_local_scalar_dense"]
    assert float(frames.grad.abs().max()) > 0


@PROBES
def test_a_verifier_runs_where_nothing_can_be_looked_at(probe, monkeypatch):
    """Without that look, and without autocast, which knows no meta device."""
    for module in (verifying, __import__(type(probe).__module__, fromlist=["x"])):
        monkeypatch.setattr(module, "check_frames", lambda *_, **__: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    frames = torch.empty(2, 9, 3, 32, 32, device="meta", requires_grad=True)
    probe = type(probe)()
    loss = Verifier(probe, TERMS)(frames, torch.empty(2, device="meta"), torch.empty(2, 9, 1, 32, 32, device="meta")).loss
    loss.sum().backward()
    assert loss.device.type == frames.grad.device.type == "meta"


@pytest.mark.parametrize("which", ["flow", pytest.param("tracks", marks=pytest.mark.slow)])
def test_every_law_compiles_into_one_graph_with_equal_results_and_gradients(which):
    """``torch.compile(fullgraph=True)``, no law excepted; in another process, for the shape checks of tests do not compile."""
    script = Path(__file__).parent / "compiled_laws.py"
    found = subprocess.run([sys.executable, str(script), which], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    laws = [law for law in FORMS if ("tracks" in law.needs) == (which == "tracks")]
    assert json.loads(found.stdout) == {repr(law): "equal" for law in laws}


def peak(work):
    """Largest number of bytes that the work holds at a time beyond what was held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return int(held.max())


@every_law
def test_memory_forward_and_backward_is_linear_in_the_frames(law):
    """From 2 T to 4 T it grows twice as much as from T to 2 T; tracks are given where a law reads them, so that pixels do not
    cover what they cost."""
    tracked = "tracks" in law.needs
    sizes = []
    for frames in (32, 64, 128):
        seen = measured(law, frames, clips=1, contact=False, tracks=tracked)
        sizes.append(peak(lambda seen=seen: law(seen).value.sum().backward()))
    growth = [after - before for before, after in pairwise(sizes)]
    assert growth[0] > 0
    assert growth[1] <= 2.3 * growth[0], sizes


def test_what_is_quadratic_in_the_frames_is_seen():
    def work(frames):
        x = torch.rand(frames, 64, requires_grad=True)
        return lambda: (x @ x.T).square().sum().backward()

    sizes = [peak(work(frames)) for frames in (16, 32, 64)]
    assert sizes[2] - sizes[1] > 2.3 * (sizes[1] - sizes[0])


def test_cleaning_gives_no_clip_away():
    x = torch.tensor([[1.0, 2.0], [float("nan"), 1.0], [float("inf"), -float("inf")], [3e38, -3e38]])
    cleaned, clean = finite(x)
    assert clean.tolist() == [True, False, False, True]
    assert cleaned.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], x[3].tolist()]
