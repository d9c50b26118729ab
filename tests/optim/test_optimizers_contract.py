"""What every optimizer must keep to. An optimizer that is new in visviva.optim is tested by being there."""

import copy
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from trajectories import OPTIMIZERS, distance, parameters, set_gradients, trajectory

from visviva.errors import InputError
from visviva.optim import AdamW, ClipGlobalNorm, MomentumReset
from visviva.optim.muon import MatrixOptimizer

SHAPES = ((8, 6), (5,), (4, 3, 3, 3), (6, 8), (8, 6), ())
ACROSS = {"AMMSGD", "AMAdamW", "AdamP", "SGDP", "SGDSaI"}  # reduce over tensors or over all of them
RATES = {  # for the problems below, in their order
    "AMMSGD": (1.0, 3.0, 3.0, 3.0),
    "FISMO": (0.3, 3.0, 0.1, 0.3),
    "NAMO": (3.0, 3.0, 0.3, 3.0),
    "NAMOD": (3.0, 3.0, 0.3, 3.0),
    "ROOT": (1.0, 3.0, 0.1, 1.0),
    "SGDM": (0.3, 3.0, 0.3, 3.0),
    "SGDP": (1.0, 3.0, 0.3, 3.0),
    "SPAM": (1.0, 3.0, 0.1, 1.0),
    "AMAdamW": (0.3, 3.0, 0.1, 3.0),
    "AdaBelief": (1.0, 3.0, 0.1, 1.0),
    "AdamP": (1.0, 3.0, 0.1, 1.0),
    "AdamW": (1.0, 3.0, 0.1, 1.0),
    "Adan": (3.0, 3.0, 0.1, 1.0),
    "EXAdam": (1.0, 3.0, 0.01, 0.1),
    "Lion": (0.1, 0.3, 0.03, 0.1),
    "LionK": (0.1, 0.3, 0.03, 0.1),
    "Muon": (0.3, 3.0, 0.1, 0.3),
    "SGDSaI": (0.1, 3.0, 0.3, 1.0),
}
USUAL = (0.1, 1.0, 0.1, 0.3)
every = pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda c: c.__name__)


class Problem:
    """Parameters and a loss, float64."""

    def __init__(self):
        torch.manual_seed(3)

    def parameters(self):
        return list(self.named.values())


class QuadraticProblem(Problem):
    def __init__(self):
        super().__init__()
        self.named = {"w": nn.Parameter(torch.randn(8, 6).double()), "b": nn.Parameter(torch.randn(5).double())}

    def loss(self):
        return sum((torch.linspace(0.1, 2.0, p.numel()).view(p.shape) * (p - 1) ** 2).sum() for p in self.parameters())


class LogisticProblem(Problem):
    def __init__(self):
        super().__init__()
        self.x = torch.randn(64, 8).double()
        self.y = (self.x @ torch.randn(8, 3).double()).argmax(1)
        self.named = {"w": nn.Parameter(torch.zeros(3, 8).double()), "b": nn.Parameter(torch.zeros(3).double())}

    def loss(self):
        return nn.functional.cross_entropy(self.x @ self.named["w"].T + self.named["b"], self.y)


class NetworkProblem(Problem):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        self.x = torch.randn(64, 2).double()
        self.y = (self.x[:, :1] * self.x[:, 1:]).tanh()
        self.named = dict(self.net.named_parameters())

    def loss(self):
        return (self.net(self.x) - self.y).square().mean()


class RegressionProblem(Problem):
    """``|A W B - C|^2`` with a solution."""

    def __init__(self):
        super().__init__()
        self.a = torch.randn(24, 12).double() * torch.logspace(0, -0.5, 12)
        self.c = self.a @ torch.randn(12, 8).double()
        self.named = {"w": nn.Parameter(torch.zeros(12, 8).double())}

    def loss(self):
        return (self.a @ self.named["w"] - self.c).square().mean()


PROBLEMS = {
    "quadratic": QuadraticProblem,
    "logistic": LogisticProblem,
    "network": NetworkProblem,
    "regression": RegressionProblem,
}
REACHED = {"quadratic": 0.01, "logistic": 0.1, "network": 0.05, "regression": 0.01}  # of the first loss


def solve(cls, problem, lr, steps=150):
    """Return the last loss over the first, the rate falling linearly to zero."""
    case = PROBLEMS[problem]()
    optimizer = cls(case.named.items(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / steps)
    first = case.loss().item()
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss().backward()
        optimizer.step()
        schedule.step()
    return case.loss().item() / first


@every
@pytest.mark.parametrize("problem", PROBLEMS)
def test_converges(cls, problem):
    assert solve(cls, problem, RATES.get(cls.__name__, USUAL)[list(PROBLEMS).index(problem)]) < REACHED[problem]


def filled(cls, dtype=torch.float64, shapes=SHAPES, **options):
    params = parameters(shapes, dtype)
    return params, cls(params, **{"lr": 0.01, **options})


def steps(optimizer, params, first=1, last=5):
    for step in range(first, last + 1):
        set_gradients(params, step)
        optimizer.step()


def values(params):
    return [p.detach().clone() for p in params]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_device_are_kept(cls, dtype):
    params, optimizer = filled(cls, dtype, lr=0.1)
    before = values(params)
    steps(optimizer, params)
    for p, old in zip(params, before, strict=True):
        assert (p.dtype, p.device, p.shape) == (dtype, old.device, old.shape)
        assert p.isfinite().all()
        assert p.ndim == 0 or (p != old).any()  # one bfloat16 may round back to where it was
        for name, state in optimizer.state[p].items():
            assert state.device == p.device
            wide = torch.float32 if name == "step" else torch.promote_types(dtype, torch.float32)
            assert state.dtype == wide, name


@every
def test_parameters_without_gradient_and_their_states_stay(cls):
    params, optimizer = filled(cls)
    steps(optimizer, params, last=2)
    still, states = params[1:4], [{n: s.clone() for n, s in optimizer.state[p].items()} for p in params[1:4]]
    before, others = values(still), values([params[0], *params[4:]])
    for step in (3, 4):
        set_gradients(params, step)
        for p in still:
            p.grad = None
        optimizer.step()
    assert equal(values(still), before)
    for p, state in zip(still, states, strict=True):
        assert all(torch.equal(optimizer.state[p][n], s) for n, s in state.items())
    assert all((a != b).any() for a, b in zip(values([params[0], *params[4:]]), others, strict=True))
    assert int(optimizer.state[params[0]]["step"]) == 4
    steps(optimizer, params, 5, 5)
    assert all((p != b).any() for p, b in zip(still, before, strict=True))
    assert int(optimizer.state[params[1]]["step"]) == 3


@every
def test_a_parameter_left_out_for_a_while_goes_on_where_it_was(cls):
    """Its own count of steps: as if the others did not exist (for what does not reduce over all parameters)."""
    if cls.__name__ == "AMMSGD":
        pytest.skip("one coefficient over all parameters")
    params, optimizer = filled(cls)
    alone = parameters()[:1]
    reference = cls(alone, lr=0.01)
    for step in range(1, 9):
        set_gradients(params, step)
        if step in (3, 4, 6):
            params[0].grad = None
        else:
            alone[0].grad = params[0].grad.clone()
            reference.step()
        optimizer.step()
    assert torch.allclose(params[0], alone[0], rtol=0, atol=1e-14)


@every
@pytest.mark.parametrize("empty", [(0,), (0, 3), (3, 0), (4, 0, 2)])
def test_empty_parameters_change_nothing_for_others(cls, empty):
    alone, reference = filled(cls)
    steps(reference, alone)
    params = [*parameters(SHAPES), *parameters([empty])]
    optimizer = cls(params, lr=0.01)
    for step in range(1, 6):
        set_gradients(params[:-1], step)
        params[-1].grad = torch.zeros(empty, dtype=torch.float64)
        optimizer.step()
    assert equal(values(params[:-1]), values(alone))
    assert params[-1].shape == torch.Size(empty)


@every
def test_nothing_but_empty_parameters(cls):
    params = parameters([(0,), (0, 3)])
    optimizer = cls(params, lr=0.01)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert [tuple(p.shape) for p in params] == [(0,), (0, 3)]


@every
def test_rate_zero_moves_nothing(cls):
    params, optimizer = filled(cls, lr=0.0)
    before = values(params)
    steps(optimizer, params)
    assert equal(values(params), before)
    assert all(p.isfinite().all() for p in params)
    optimizer.param_groups[0]["lr"] = 0.01
    steps(optimizer, params, 6, 6)
    assert all(p.isfinite().all() and (p != b).any() for p, b in zip(params, before, strict=True))


@every
def test_accumulated_gradients_are_their_sum(cls):
    results = []
    for accumulate in (False, True):
        case = NetworkProblem()
        optimizer = cls(case.named.items(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            if accumulate:
                for _ in range(4):
                    (case.loss() / 4).backward()
            else:
                case.loss().backward()
            optimizer.step()
        results.append(values(case.parameters()))
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) < 1e-11


def saved(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_resumes_bit_for_bit(cls, dtype):
    params, optimizer = filled(cls, dtype)
    steps(optimizer, params, 1, 4)
    weights, state = values(params), saved(optimizer)
    steps(optimizer, params, 5, 8)
    again, fresh = filled(cls, dtype, lr=0.5)
    with torch.no_grad():
        for p, w in zip(again, weights, strict=True):
            p.copy_(w)
    fresh.load_state_dict(state)
    assert fresh.param_groups[0]["lr"] == 0.01
    steps(fresh, again, 5, 8)
    assert equal(values(again), values(params))
    with torch.no_grad():  # and into one that has gone elsewhere
        for p, w in zip(params, weights, strict=True):
            p.copy_(w)
    optimizer.load_state_dict(state)
    steps(optimizer, params, 5, 8)
    assert equal(values(again), values(params))


@every
def test_resumes_with_other_group_order_by_name(cls):
    def build(order):
        named = dict(zip("abcdef", parameters(SHAPES), strict=True))
        groups = [{"params": [(n, named[n]) for n in names], "lr": lr} for names, lr in order]
        return list(named.values()), cls(groups, lr=0.1)

    params, optimizer = build([("abc", 0.01), ("def", 0.02)])
    steps(optimizer, params, 1, 4)
    weights, state = values(params), saved(optimizer)
    steps(optimizer, params, 5, 8)
    again, fresh = build([("fed", 0.5), ("cba", 0.5)])
    with torch.no_grad():
        for p, w in zip(again, weights, strict=True):
            p.copy_(w)
    fresh.load_state_dict(state)
    assert [g["lr"] for g in fresh.param_groups] == [0.02, 0.01]
    steps(fresh, again, 5, 8)
    assert max((a - b).abs().max() for a, b in zip(values(again), values(params), strict=True)) < 1e-12


@every
def test_copies_go_on_alike(cls):
    params, optimizer = filled(cls, extra=[MomentumReset(3)])
    steps(optimizer, params, 1, 4)
    twins, twin = copy.deepcopy((params, optimizer))
    steps(optimizer, params, 5, 8)
    before = values(twins)
    steps(twin, twins, 5, 8)
    assert not equal(before, values(twins))
    assert equal(values(twins), values(params))


@every
def test_weights_keep_storages_of_their_own(cls):
    """Who saves a model takes parameters that share a storage for tied ones, and drops all but the first."""
    params, optimizer = filled(cls)
    steps(optimizer, params)
    assert len({p.untyped_storage().data_ptr() for p in params}) == len(params)
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in params)


def test_accelerate_saves_the_whole_model(tmp_path):
    import accelerate
    from safetensors.torch import load_file

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, AdamW(model.parameters()))
    accelerator.backward(model(torch.ones(1, 3)).sum())
    optimizer.step()
    accelerator.save_model(model, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[n], w) for n, w in model.state_dict().items())


@every
def test_dtypes_may_mix(cls):
    dtypes = [torch.float32, torch.bfloat16, torch.float64]
    if cls.__name__ in ("AMMSGD",):  # what it sums over all of them differs
        pytest.skip("one coefficient over all parameters")
    params = [p for dtype in dtypes for p in parameters(SHAPES[:2], dtype)]
    optimizer = cls(params, lr=0.01)
    apart = [parameters(SHAPES[:2], dtype) for dtype in dtypes]
    singles = [cls(p, lr=0.01) for p in apart]
    for step in range(1, 5):
        for own, single in zip(apart, singles, strict=True):
            set_gradients(own, step)
            single.step()
        for p, q in zip(params, [q for own in apart for q in own], strict=True):
            p.grad = q.grad.clone()
        optimizer.step()
    assert equal(values(params), values([q for own in apart for q in own]))
    assert [p.dtype for p in params] == [d for d in dtypes for _ in range(2)]


@every
@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine", "lambda_per_group"])
def test_learning_rate_schedulers(cls, scheduler):
    params = parameters(SHAPES)
    optimizer = cls([{"params": params[:3]}, {"params": params[3:]}], lr=0.01)
    cycles = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    schedules = torch.optim.lr_scheduler
    made = {
        "one_cycle": lambda: schedules.OneCycleLR(optimizer, max_lr=0.05, total_steps=12, cycle_momentum=cycles),
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, T_max=10),
        "lambda_per_group": lambda: schedules.LambdaLR(optimizer, [lambda t: 1.0, lambda t: 0.0]),
    }[scheduler]()
    rates, momenta, before = [], set(), values(params)
    for step in range(1, 9):
        set_gradients(params, step)
        optimizer.step()
        made.step()
        group = optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.add(group["momentum"] if "momentum" in group else group.get("betas", (0,))[0])
    assert all(p.isfinite().all() for p in params)
    assert all((p != b).any() for p, b in zip(params[:3], before[:3], strict=True))
    assert len(set(rates)) == (1 if scheduler == "lambda_per_group" else 8)
    assert (len(momenta) > 1) == (cycles and scheduler == "one_cycle")


@every
def test_cycled_momentum_acts(cls):
    name = next((n for n in ("momentum", "betas") if n in inspect_defaults(cls)), None)
    if name is None:
        pytest.skip("has no momentum that schedulers know")

    def build(change):
        params, optimizer = filled(cls, shapes=((8, 6), (4, 3, 3, 3)), **({"momentum": 0.9} if name == "momentum" else {}))
        steps(optimizer, params, 1, 3)
        if change:
            old = optimizer.param_groups[0][name]
            optimizer.param_groups[0][name] = 0.5 if name == "momentum" else (0.5, *old[1:])
        steps(optimizer, params, 4, 6)
        return values(params)

    assert max((a - b).abs().max() for a, b in zip(build(False), build(True), strict=True)) > 1e-6


def inspect_defaults(cls):
    return cls(parameters([(2, 2)])).defaults


@every
def test_closures(cls):
    case = QuadraticProblem()
    optimizer = cls(case.named.items(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = case.loss()
        loss.backward()
        return loss

    before = case.loss().item()
    assert optimizer.step(closure).item() == before
    assert optimizer.step(closure).item() != before
    assert optimizer.step() is None


@every
def test_gradient_scaler(cls):
    results = []
    for scale in (False, True):
        case = NetworkProblem()
        optimizer = cls(case.named.items(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scale)
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(case.loss() * (float("inf") if scale and step == 2 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            if not scale and step == 2:  # the step with infinite gradients is left out
                break
        if not scale:
            results.append(values(case.parameters()))
            continue
        assert scaler.get_scale() == 2.0**9
        results.append(values(case.parameters()))
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) < 1e-12


@every
def test_sparse_gradients_are_refused(cls):
    params = parameters([(5,), (6, 3)])
    optimizer = cls([("bias", params[0]), ("table.weight", params[1])], lr=0.01)
    params[1].grad = torch.sparse_coo_tensor([[0], [1]], [1.0], (6, 3), dtype=torch.float64, check_invariants=True)
    with pytest.raises(InputError, match=r"table\.weight is sparse"):
        optimizer.step()


@every
def test_complex_parameters_are_refused(cls):
    with pytest.raises(InputError, match="phase is complex"):
        cls([("phase", nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64)))], lr=0.01)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_stay_where_they_are(cls, bad):
    """In their own tensor where the optimizer reduces over tensors, in their own entry otherwise."""
    if cls.__name__ == "AMMSGD":
        pytest.skip("one coefficient over all parameters")
    reduces = cls.__name__ == "SGDSaI" or issubclass(cls, MatrixOptimizer)
    shapes = [(5,), (7,)] if reduces else SHAPES
    params, reference = parameters(shapes), parameters(shapes)
    optimizer, clean = cls(params, lr=0.01), cls(reference, lr=0.01)
    for step in range(1, 4):
        set_gradients(params, step)
        set_gradients(reference, step)
        if step == 2:
            params[0].grad.view(-1)[1] = bad
        optimizer.step()
        clean.step()
    assert equal(values(params[1:]), values(reference[1:]))
    hit = params[0].detach().view(-1)
    if cls.__name__ not in ACROSS:
        rest = torch.arange(len(hit)) != 1
        assert torch.equal(hit[rest], reference[0].detach().view(-1)[rest])


@every
def test_duplicates_are_refused(cls):
    p, q = parameters([(3, 2), (2,)])
    with pytest.raises(InputError, match=r"given twice .*\(3, 2\)"):
        cls([p, q, p])
    with pytest.raises(InputError, match="given twice"):
        cls([{"params": [p]}, {"params": [q, p]}])
    optimizer = cls([p])
    with pytest.raises(InputError, match="given twice"):
        optimizer.add_param_group({"params": [("again", p)]})


@every
def test_groups_without_parameters_are_refused(cls):
    with pytest.raises(InputError, match="no parameters"):
        cls([])
    with pytest.raises(InputError, match="group 1 holds no parameters"):
        cls([{"params": parameters([(2,)])}, {"params": []}])


@every
@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -0.1])
def test_bad_rates_are_refused(cls, lr):
    with pytest.raises(InputError, match=r"lr is .*; allowed is 0 <= value, finite"):
        cls(parameters([(2, 2)]), lr=lr)
    params, optimizer = filled(cls)
    optimizer.param_groups[0]["lr"] = lr
    before = values(params)
    set_gradients(params, 1)
    with pytest.raises(InputError, match=r"lr is .*; allowed is 0 <= value, finite"):
        optimizer.step()
    assert equal(values(params), before)


BAD = {
    "density": (1.5, r"density is 1.5; allowed is"),  # field: (bad value, what the message must hold)
    "betas": ((1.0, 0.999, 0.99), r"beta1? is 1\.0; allowed is 0 <= value < 1"),
    "eps": (-1e-8, r"eps(_in_state)? is -1e-08; allowed is"),
    "weight_decay": (-0.1, r"weight_decay is -0\.1; allowed is 0 <= value"),
    "momentum": (1.5, r"(momentum|beta|mu) is 1\.5; allowed is 0 <= value < 1"),
    "dampening": (2.0, r"dampening is 2\.0; allowed is 0 <= value"),
    "delta": (-1.0, r"delta is -1\.0"),
    "wd_ratio": (-1.0, r"wd_ratio is -1\.0"),
    "theta": (-1.0, r"theta is -1\.0"),
    "reset_every": (-3, r"period is -3"),
    "warmup": (-1, r"warmup is -1"),
    "wait": (-1, r"wait is -1"),
    "memory": (-0.1, r"memory is -0\.1"),
    "beta_max": (1.0, r"beta_max is 1\.0"),
    "beta2": (1.0, r"beta is 1\.0"),
    "mu2": (1.0, r"beta is 1\.0"),
    "clamp": (0.0, r"clamp is 0\.0"),
    "gamma": (1.5, r"gamma is 1\.5"),
    "mu": (-0.1, r"mu is -0\.1"),
    "refresh": (0, r"refresh is 0"),
    "quantile": (1.5, r"quantile is 1\.5"),
    "max_grad_norm": (-1.0, r"max_norm is -1\.0"),
    "e": (-1.0, r"e is -1\.0"),
    "schedule": ("newton", r"schedule is 'newton'; allowed are standard"),
}
UNCHECKED = {"lr", "nesterov", "rectify", "no_prox", "growing_lr", "normalize", "restart_count", "fixed", "guards", "undamped"}
UNCHECKED |= {"eps_mode", "decay", "axis", "map", "scale", "algorithm", "coefficients", "project_momentum"}  # words: see below
UNCHECKED |= {"seed", *MatrixOptimizer.OTHERS}


@every
def test_bad_hyper_parameters_are_refused(cls):
    """The message names the field, the value and the range. Every field of every optimizer has an entry above."""
    defaults = inspect_defaults(cls)
    assert not set(defaults) - set(BAD) - UNCHECKED
    for name in sorted(set(defaults) & set(BAD)):
        value, message = BAD[name]
        if name == "betas":
            value = value[: len(defaults["betas"])]
        with pytest.raises(InputError, match=message):
            cls([{"params": parameters([(4, 3)]), name: value}], lr=0.01)


@pytest.mark.parametrize(
    ("name", "field"),
    [("AdamW", "eps_mode"), ("AdaBelief", "eps_mode"), ("AdaBelief", "decay"), ("Muon", "scale"), ("NAMOD", "axis")],
)
def test_unknown_words_are_refused(name, field):
    cls = next(c for c in OPTIMIZERS if c.__name__ == name)
    with pytest.raises(InputError, match=rf"{field} is 'other'; allowed are \w+, "):
        cls([{"params": parameters([(4, 3)]), field: "other"}], lr=0.01)


@every
def test_states_of_other_optimizers_are_refused(cls):
    params, optimizer = filled(cls)
    steps(optimizer, params, 1, 2)
    state = saved(optimizer)
    for other in (c for c in OPTIMIZERS if c is not cls and not issubclass(c, cls) and not issubclass(cls, c)):
        _, target = filled(other)
        with pytest.raises(InputError, match=r"another optimizer|the same optimizer|allowed are"):
            target.load_state_dict(state)


@every
def test_states_of_other_models_are_refused(cls):
    params, optimizer = filled(cls)
    steps(optimizer, params, 1, 2)
    state = saved(optimizer)
    _, fewer = filled(cls, shapes=SHAPES[:3])
    with pytest.raises(InputError, match="6 parameters, this optimizer has 3"):
        fewer.load_state_dict(state)
    others = parameters([(9, 6), *SHAPES[1:]])
    target = cls(others, lr=0.01)
    set_gradients(others, 3)
    with pytest.raises(InputError, match=r"saved state '\w+' has shape \(8,.*, this optimizer keeps \(9,"):
        load_and_step(target, state)


def load_and_step(optimizer, state):
    optimizer.load_state_dict(state)
    optimizer.step()


MODES = {"adopted": dict(adopt=True), "capturable": dict(capturable=True), "compile off": dict(compile=False)}


@every
@pytest.mark.parametrize("mode", MODES)
def test_modes_agree(cls, mode):
    if mode == "capturable" and cls.__name__ == "FISMO":
        with pytest.raises(InputError, match="Whiten cannot be captured"):
            filled(cls, capturable=True)
        return
    extra = [ClipGlobalNorm(1.0), MomentumReset(4)]
    plain, special = (trajectory(lambda p, o=o: cls(p, lr=0.01, extra=extra, **o), SHAPES, steps=12) for o in ({}, MODES[mode]))
    assert distance(plain, special) <= 1e-12


@every
def test_adopted_gradients_are_zeroed_in_place_and_dropped_ones_gathered(cls):
    results = []
    for adopt in (False, True):
        case = NetworkProblem()
        optimizer = cls(case.named.items(), lr=0.01, adopt=adopt)
        for step in range(6):
            optimizer.zero_grad()
            if adopt and step == 3:
                for p in case.parameters():
                    p.grad = None
            if adopt and step in (1, 2):
                assert all(p.grad is not None and not p.grad.any() for p in case.parameters())
            case.loss().backward()
            optimizer.step()
        results.append(values(case.parameters()))
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) <= 1e-12


@every
def test_large_tensors_where_they_lie_agree_with_gathered_ones(cls, monkeypatch):
    shapes = ((16, 16), (40,), (8, 4, 3, 3))
    gathered = trajectory(lambda p: cls(p, lr=0.01), shapes, steps=10)
    monkeypatch.setitem(importlib.import_module("visviva.optim.optimizer").DIRECT, "cpu", 30)
    addresses = {}

    def build(p):
        addresses.update({id(q): q.data_ptr() for q in p})
        addresses["kept"] = p
        return cls(p, lr=0.01)

    assert distance(gathered, trajectory(build, shapes, steps=10)) <= 1e-12
    assert all(q.data_ptr() == addresses[id(q)] for q in addresses["kept"])


@every
def test_split_into_groups_in_any_order(cls):
    def build(order):
        params = parameters(SHAPES)
        return params, cls([{"params": [params[i] for i in part]} for part in order], lr=0.01)

    results = []
    for order in ([[0, 1, 2, 3, 4, 5]], [[5, 3], [4, 0, 1], [2]]):
        params, optimizer = build(order)
        steps(optimizer, params, 1, 6)
        results.append(values(params))
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) <= 1e-12


@every
def test_parameters_may_be_views_with_any_strides(cls):
    base = parameters([(6, 8)])[0].detach()
    images = parameters([(4, 3, 3, 3)])[0].detach()
    odd = [nn.Parameter(base.T), nn.Parameter(images.to(memory_format=torch.channels_last))]
    even = [nn.Parameter(base.T.contiguous()), nn.Parameter(images.clone())]
    for params in (odd, even):
        steps(cls(params, lr=0.01), params)
    assert equal(values(odd), values(even))


@every
def test_a_model_cast_or_replaced_between_steps_goes_on(cls):
    params, optimizer = filled(cls, torch.float32)
    steps(optimizer, params, 1, 3)
    for p in params:
        p.data = p.data.double()
    before = values(params)
    steps(optimizer, params, 4, 6)
    assert all(p.dtype == torch.float64 and p.isfinite().all() for p in params)
    assert all((p != b).any() for p, b in zip(params, before, strict=True))


def changed(name, value):
    if isinstance(value, tuple):
        return tuple(0.9 * x for x in value)
    return 2 * value if name in ("lr", "eps", "theta", "max_grad_norm") else 0.8 * value


def floats_of(cls):
    """Every hyper-parameter that is a number, also those that are 0 by default."""
    defaults = inspect_defaults(cls)
    return {
        n: v for n, v in defaults.items() if isinstance(v, float) or (isinstance(v, tuple) and v and isinstance(v[0], float))
    }


@every
def test_numbers_may_change_in_the_middle(cls):
    """Every one of them, from its default to another value and from zero: as an optimizer loaded with these values does."""
    # density decides how much is kept: it is a layout, not a number of a step
    start = {n: v for n, v in floats_of(cls).items() if n not in ("adamw_eps", "adamw_ratio", "density")}
    for name, value in start.items():
        new = changed(name, value) if value else 0.05
        params, optimizer = filled(cls)
        steps(optimizer, params, 1, 3)
        weights, state = values(params), saved(optimizer)
        optimizer.param_groups[0][name] = new
        steps(optimizer, params, 4, 6)
        again, fresh = filled(cls)
        with torch.no_grad():
            for p, w in zip(again, weights, strict=True):
                p.copy_(w)
        fresh.load_state_dict(state)
        fresh.param_groups[0][name] = new
        steps(fresh, again, 4, 6)
        assert equal(values(params), values(again)), name


@pytest.mark.slow
def test_compiled_programs_agree_with_eager_ones():
    """In a process without the shape checker, which the compiler cannot look through. Numbers change half-way."""
    names = ["AdamW", "AdaBelief", "Adan", "AMMSGD", "AdamP", "SPAM", "NAMO"]
    code = (Path(__file__).parent / "compiled_against_eager.py").read_text()
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if not found.pop("compiler"):
        pytest.skip("no compiler for torch.compile here")
    assert found.pop("programs") >= len(names)
    assert set(found) == set(names)
    assert max(found.values()) <= 1e-12, found
