"""Models of the SMPL family: synthetic files in their format, against the smplx package; hostile files."""

import numpy as np
import pytest
import roma
import torch

from visviva.data.bodies import read_smpl, write_test_model
from visviva.errors import InputError
from visviva.physics.dynamics import place

KINDS = {"smpl": (6890, 24), "smplh": (6890, 52), "smplx": (10475, 55)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        write_test_model(folder / f"{kind}.npz", kind)
    return folder


@pytest.fixture(scope="module")
def models(files):
    return {kind: read_smpl(files / f"{kind}.npz") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_test_models_have_the_format_of_the_family(models, kind):
    model = models[kind]
    assert (model.kind, model.template.shape[0], len(model.parents)) == (kind, *KINDS[kind])
    assert torch.allclose(model.weights.sum(-1), torch.ones(len(model.weights)), atol=1e-6)
    taller = model.joints(torch.tensor([1.0]))
    assert torch.allclose(taller, 1.04 * model.joints(), atol=1e-5)
    legs = model.joints(torch.tensor([0.0, 0.0, 1.0])) - model.joints()
    assert float(legs[7, 1]) == pytest.approx(-0.04 * 0.88, abs=2e-3)
    assert float(legs[12:16].abs().max()) < 1e-6


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_smplx_poses_the_same_joints(models, kind):
    """The body's forward kinematics against the smplx package, of a random pose and shape."""
    pytest.importorskip("smplx")
    model = models[kind]
    rng = torch.Generator().manual_seed(0)
    betas = torch.randn(3, generator=rng)
    turns = 0.5 * torch.randn(24, 3, generator=rng)
    moved = torch.randn(3, generator=rng)
    count = 24 if kind == "smpl" else 22
    full = torch.cat([betas, torch.zeros(7)])[None]
    with torch.no_grad():
        posed = model.smplx()(
            betas=full, global_orient=turns[None, 0], body_pose=turns[1:count].reshape(1, -1), transl=moved[None]
        )
    body = model.body(betas, welded=())
    quaternions = roma.quat_xyzw_to_wxyz(roma.rotvec_to_unitquat(turns[:count]))
    q = torch.cat([moved, quaternions.flatten()])
    assert torch.allclose(place(body, q).position, posed.joints[0, :count], atol=1e-5)


def test_shapes_change_the_body_and_have_gradients(models):
    model = models["smpl"].to(torch.float64)
    betas = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64, requires_grad=True)
    for masses in ("deleva", "volume"):
        body = model.body(betas, masses=masses, sex=1.0)
        q = body.neutral()
        q[3:7] = torch.tensor([0.9, 0.3, 0.1, 0.3])
        v = torch.linspace(-1, 1, body.nv, dtype=torch.float64)
        tau = body.inverse_dynamics(q, v, v)
        slope = torch.autograd.grad(tau.square().sum(), betas)[0]
        assert bool(slope.isfinite().all())
        assert bool((slope[[0, 2]] != 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_give_the_meshs_mass(models, kind):
    model = models[kind].to(torch.float64)
    corners = model.template[model.faces]
    volume = float(torch.linalg.det(corners).sum() / 6)
    body = model.body(masses="volume")
    assert body.total_mass == pytest.approx(985 * volume, rel=1e-6)
    assert body.nv == 51
    assert model.body(masses="volume", mass=70.0).total_mass == pytest.approx(70)
    thigh = body.names.index("left_hip")
    assert float(body.mass[thigh]) == pytest.approx(985 * np.pi * 0.07**2 * 0.4, rel=0.3)
    mirrored = [body.names.index(n.replace("left", "right")) for n in body.names]
    left = [i for i, n in enumerate(body.names) if n.startswith("left")]
    assert torch.allclose(body.mass[left], body.mass[[mirrored[i] for i in left]], rtol=0.02)


def test_bigger_girth_weighs_more(models):
    thin, thick = (models["smpl"].body(torch.tensor([0.0, g]), masses="volume").total_mass for g in (-1.0, 1.0))
    assert thick > 1.1 * thin


def spoiled(files, tmp_path, **changes):
    with np.load(files / "smpl.npz", allow_pickle=False) as archive:
        arrays = dict(archive) | changes
    path = tmp_path / "spoiled.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": None}, "no weights in it"),
        ({"v_template": np.zeros((100, 3))}, "100 vertices and 24 joints are no model"),
        ({"v_template": np.full((6890, 3), np.nan)}, "v_template holds what is no finite number"),
        ({"shapedirs": np.zeros((6890, 10))}, r"shapedirs has the shape \(6890, 10\)"),
        ({"f": np.full((10, 3), 7000)}, "faces name vertices"),
        ({"J_regressor": np.array([{"a": 1}])}, "'J_regressor' is damaged or pickled"),
        ({"kintree_table": np.zeros((2, 24), np.uint32)}, "not in the order of the SMPL family"),
        ({"v_template": np.zeros(3)}, "are matrices"),
    ],
)
def test_files_of_other_formats_are_refused(files, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        read_smpl(spoiled(files, tmp_path, **changes))


def test_missing_pickled_and_damaged_files_say_what_to_do(files, tmp_path):
    with pytest.raises(InputError, match=r"smpl\.is\.tue\.mpg\.de.*write_test_model"):
        read_smpl(tmp_path / "SMPL_MALE.npz")
    (tmp_path / "SMPL_MALE.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"pickles run code.*Convert it once"):
        read_smpl(tmp_path / "SMPL_MALE.pkl")
    (tmp_path / "cut.npz").write_bytes((files / "smpl.npz").read_bytes()[:5000])
    with pytest.raises(InputError, match="not an npz file"):
        read_smpl(tmp_path / "cut.npz")


def test_wrong_arguments_are_refused(models, tmp_path):
    with pytest.raises(InputError, match="up to 20 finite numbers"):
        models["smpl"].joints(torch.zeros(300))
    with pytest.raises(InputError, match="masses is 'mesh'"):
        models["smpl"].body(masses="mesh")
    with pytest.raises(InputError, match="no test model 'mano'"):
        write_test_model(tmp_path / "m.npz", "mano")
