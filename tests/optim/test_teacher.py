"""The EMA teacher against closed forms, and against torch's and diffusers' averages."""

import copy
import math

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim.rounding import to_bfloat16
from visviva.optim.teacher import Constant, Cosine, InverseGamma, Linear, MeanTeacher, Ramp, TeacherEMA, scaled_decay


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)


def drift(student, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p.dtype))


@pytest.mark.parametrize("m", [0.0, 0.5, 0.99])
def test_constant_student_closed_form(m):
    """xi_k = theta + m^k (xi_0 - theta)."""
    theta = {"w": torch.full((5,), 2.0, dtype=torch.float64)}
    teacher = TeacherEMA({"w": torch.full((5,), -1.0, dtype=torch.float64)}, m)
    for _ in range(7):
        teacher.update(theta)
    assert torch.allclose(teacher.shadow["w"], theta["w"] + m**7 * (-1.0 - theta["w"]), rtol=0, atol=1e-14)


def test_lag_behind_a_ramp_is_m_over_one_minus_m():
    m = 0.9
    teacher = TeacherEMA({"w": torch.zeros(1, dtype=torch.float64)}, m)
    for t in range(1, 400):
        teacher.update({"w": torch.tensor([float(t)], dtype=torch.float64)})
    assert teacher.shadow["w"].item() == pytest.approx(399 - m / (1 - m), abs=1e-9)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (Constant(0.9), {0: 0.9, 1000: 0.9}),
        (Cosine(0.996, 100), {0: 0.996, 50: 0.998, 100: 1.0, 500: 1.0}),
        (Linear(0.998, 1.0, 10), {0: 0.998, 5: 0.999, 10: 1.0, 99: 1.0}),
        (Ramp(0.9999), {0: 0.0, 1: 2 / 11, 2: 0.25, 3: 4 / 13, 10**6: 0.9999}),
        (Ramp(0.5, start=4), {4: 0.0, 5: 2 / 11}),
        (InverseGamma(0.9999), {0: 0.0, 1: 1 - 2 ** (-2 / 3), 2: 1 - 3 ** (-2 / 3), 31622: 0.999}),
        (InverseGamma(0.9999, power=0.75), {9999: 0.999}),
        (MeanTeacher(0.9), {0: 0.0, 1: 0.5, 3: 0.75, 100: 0.9}),
    ],
)
def test_schedules(decay, expected):
    for t, m in expected.items():
        assert decay(t) == pytest.approx(m, abs=2e-7)


def test_mean_teacher_warm_up_is_the_plain_mean():
    values = [3.0, -1.0, 4.0, 1.5]
    teacher = TeacherEMA({"w": torch.zeros(1, dtype=torch.float64)}, MeanTeacher(1.0))
    for v in values:
        teacher.update({"w": torch.tensor([v], dtype=torch.float64)})
    assert teacher.shadow["w"].item() == pytest.approx(sum(values) / 4, abs=1e-12)


def test_half_life():
    m = 0.99
    teacher = TeacherEMA({"w": torch.ones(1, dtype=torch.float64)}, m)
    for _ in range(round(math.log(2) / -math.log(m))):
        teacher.update({"w": torch.zeros(1, dtype=torch.float64)})
    assert teacher.shadow["w"].item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parity
@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_parity_with_torch_averaged_model(buffers):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    student = network()
    peer = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=buffers == "average")
    peer.update_parameters(student)  # its first call copies
    teacher = TeacherEMA(student, 0.9, buffers=buffers)
    for step in range(6):
        drift(student, step)
        student(torch.randn(8, 3, generator=torch.Generator().manual_seed(step)))
        peer.update_parameters(student)
        teacher.update(student)
    for name, value in peer.module.named_parameters():
        assert torch.allclose(teacher.shadow[name], value, rtol=0, atol=1e-7), name
    for name, value in peer.module.named_buffers():
        copied = buffers == "copy" or not value.is_floating_point()  # torch would round an averaged count down to 0
        expected = student.get_buffer(name) if copied else value
        assert torch.allclose(teacher.shadow[name].double(), expected.double(), rtol=0, atol=1e-7), name


@pytest.mark.parity
@pytest.mark.parametrize("warm_up", [False, True])
def test_parity_with_diffusers_ema(warm_up):
    from diffusers.training_utils import EMAModel

    student = network()
    peer = EMAModel(student.parameters(), decay=0.75, use_ema_warmup=warm_up, update_after_step=1)
    teacher = TeacherEMA(student, InverseGamma(0.75, start=1) if warm_up else Ramp(0.75, start=1))
    for step in range(30):
        drift(student, step)
        peer.step(student.parameters())
        teacher.update(student)
        for (name, _), value in zip(student.named_parameters(), peer.shadow_params, strict=True):
            assert torch.allclose(teacher.shadow[name], value, rtol=0, atol=2e-6), (step, name)


def test_bf16_student_moves_an_fp32_teacher_but_not_a_bf16_one():
    student = {"w": torch.ones(1, dtype=torch.bfloat16)}
    teacher = TeacherEMA({"w": torch.full((1,), 0.5, dtype=torch.bfloat16)}, 0.999)
    naive = torch.full((1,), 0.5, dtype=torch.bfloat16)
    for _ in range(5000):
        teacher.update(student)
        naive.mul_(0.999).add_(student["w"], alpha=0.001)
    assert teacher.shadow["w"].dtype == torch.float32
    assert teacher.shadow["w"].item() == pytest.approx(1 - 0.5 * 0.999**5000, abs=1e-4)
    assert naive.item() < 0.6


def test_addresses_do_not_change():
    student = network()
    teacher = TeacherEMA(student, Ramp(0.9))
    addresses = {n: t.data_ptr() for n, t in teacher.shadow.items()}
    for step in range(3):
        drift(student, step)
        teacher.update(student)
    with teacher.applied(student):
        pass
    assert addresses == {n: t.data_ptr() for n, t in teacher.shadow.items()}


def test_lora_averages_trainables_only_and_leaves_frozen_tensors_alone():
    student = network().requires_grad_(False)
    student[2].requires_grad_(True)
    frozen = {n: p for n, p in student.named_parameters() if not p.requires_grad}
    teacher = TeacherEMA(student, 0.5, trainable_only=True)
    assert set(teacher.shadow) == {"2.weight", "2.bias"}
    with teacher.applied(student):
        assert all(student.get_parameter(n) is p for n, p in frozen.items())


def test_frozen_parameters_are_copied_not_averaged():
    student = network()
    student[0].requires_grad_(False)
    teacher = TeacherEMA(student, 0.9)
    drift(student, 1)
    teacher.update(student)
    assert torch.equal(teacher.shadow["0.weight"], student[0].weight)
    assert not torch.equal(teacher.shadow["2.weight"], student[2].weight)


def test_accumulation_is_one_update():
    student = network()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    teacher = TeacherEMA(student, 0.9)
    for micro in range(4):
        student(torch.randn(4, 3, generator=torch.Generator().manual_seed(micro))).square().mean().backward()
    before = copy.deepcopy(teacher.shadow)
    optimizer.step()
    teacher.update(student)
    assert teacher.step == 1
    expected = torch.lerp(before["2.weight"], student[2].weight.detach(), 0.1)
    assert torch.allclose(teacher.shadow["2.weight"], expected, rtol=0, atol=1e-8)


def test_applied_swaps_and_always_restores():
    student = network(dtype=torch.bfloat16)
    teacher = TeacherEMA(student, 0.5)
    drift(student, 3)
    own = copy.deepcopy(student.state_dict())
    with teacher.applied(student, device="cpu"):
        assert torch.equal(student[0].weight, teacher.shadow["0.weight"].bfloat16())
    assert all(torch.equal(v, own[n]) for n, v in student.state_dict().items())
    with pytest.raises(ZeroDivisionError), teacher.applied(student):
        1 / 0  # noqa: B018
    assert all(torch.equal(v, own[n]) for n, v in student.state_dict().items())


def test_save_load_continue_is_exact():
    student = network()
    teacher, other = (TeacherEMA(student, Ramp(0.99)) for _ in range(2))
    for step in range(3):
        drift(student, step)
        teacher.update(student)
    other.load_state_dict(copy.deepcopy(teacher.state_dict()))
    for step in range(3, 6):
        drift(student, step)
        teacher.update(student)
        other.update(student)
    assert other.step == teacher.step == 6
    assert all(torch.equal(other.shadow[n], v) for n, v in teacher.shadow.items())


def test_into_a_network_that_can_be_called():
    student = network().eval()
    target = copy.deepcopy(student)
    teacher = TeacherEMA(student, 0.0, into=target)
    drift(student, 5)
    teacher.update(student)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(target(x), student(x))
    assert not any(p.requires_grad for p in target.parameters())


def test_bad_input_is_one_sentence():
    student = network()
    with pytest.raises(InputError, match="within \\[0, 1\\]"):
        TeacherEMA(student, 1.5)
    with pytest.raises(InputError, match="nothing to average"):
        TeacherEMA(network().requires_grad_(False), 0.9, trainable_only=True)
    with pytest.raises(InputError, match="does not match"):
        TeacherEMA(student, 0.9).update(nn.Linear(3, 4))
    with pytest.raises(InputError, match="own float32 copy"):
        TeacherEMA(student, 0.9, into=student)
    with pytest.raises(InputError, match="no stored weights"):
        TeacherEMA(student, 0.9).restore(student)
    state = TeacherEMA(student, 0.9).state_dict()
    with pytest.raises(InputError, match="same schedule"):
        TeacherEMA(student, 0.8).load_state_dict(state)


def _shard_and_average(rank, port, results):
    import os

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        plain, sharded = nn.Linear(3, 5, bias=False), nn.Linear(3, 5, bias=False)  # 5 rows: uneven shards
        for model in (plain, sharded):
            with torch.no_grad():
                model.weight.copy_(torch.arange(15.0).reshape(5, 3))
        fully_shard(sharded, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
        teacher, reference = TeacherEMA(sharded, Ramp(0.9)), TeacherEMA(plain, Ramp(0.9))
        for _ in range(3):
            for model in (plain, sharded):
                with torch.no_grad():
                    for p in model.parameters():
                        p.mul_(1.5)
            teacher.update(sharded)
            reference.update(plain)
        gathered = teacher.shadow["weight"].full_tensor()
        loaded = TeacherEMA(sharded, Ramp(0.9))
        loaded.load_state_dict({"step": 3, "decay": repr(Ramp(0.9)), "shadow": {"weight": gathered}})
        with loaded.applied(sharded):
            worn = sharded.weight.full_tensor().detach()
        results.put((rank, torch.equal(gathered, reference.shadow["weight"]), torch.equal(worn, gathered)))
    finally:
        dist.destroy_process_group()


def test_sharded_student_is_averaged_shard_by_shard():
    import socket

    import torch.multiprocessing as mp

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_shard_and_average, args=(port, results), nprocs=2)
    assert sorted(results.get() for _ in range(2)) == [(0, True, True), (1, True, True)]


def test_a_bfloat16_teacher_moves_when_rounded_stochastically():
    student = {"w": torch.full((4096,), 1.0)}
    teacher = TeacherEMA({"w": torch.full((4096,), 0.5)}, 0.999, dtype=torch.bfloat16)
    for _ in range(2000):
        teacher.update(student)
    assert teacher.shadow["w"].dtype == torch.bfloat16
    expected = 1.0 - 0.5 * 0.999**2000
    assert abs(teacher.shadow["w"].float().mean().item() - expected) < 2e-3


def test_a_stochastic_teacher_resumes_exactly():
    student = {"w": torch.randn(64, generator=torch.Generator().manual_seed(0))}
    whole = TeacherEMA({"w": torch.zeros(64)}, 0.9, dtype=torch.bfloat16, seed=3)
    for _ in range(3):
        whole.update(student)
    resumed = TeacherEMA({"w": torch.zeros(64)}, 0.9, dtype=torch.bfloat16, seed=3)
    resumed.load_state_dict({**whole.state_dict(), "shadow": {"w": whole.shadow["w"].clone()}})
    for teacher in (whole, resumed):
        teacher.update(student)
    assert torch.equal(whole.shadow["w"], resumed.shadow["w"])


def test_stochastic_rounding_keeps_infinities_and_the_mean():
    values = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0, -1.0])
    rounded = to_bfloat16(values).float()
    assert torch.equal(rounded.nan_to_num(7.0), values.nan_to_num(7.0))
    third = torch.full((100_000,), 1.0 / 3.0)
    spacing = 2.0**-9
    error = to_bfloat16(third, torch.Generator().manual_seed(1)).float().mean() - third[0]
    assert error.abs() < 5 * spacing / 100_000**0.5


def test_the_decay_of_a_larger_batch():
    assert scaled_decay(0.99, 4) == pytest.approx(0.99**4)
