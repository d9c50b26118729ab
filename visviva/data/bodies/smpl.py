"""Bodies of the SMPL family: SMPL, SMPL-H and SMPL-X model files (npz), which users bring under their own licence.

Files are read without unpickling anything. Shape coefficients give the mesh at rest and its joints,

    v = template + sum_k beta_k shapedirs_k,   joints = J_regressor v,

and from them a `Body`, with de Leva's masses or those of the mesh's volume.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.errors import InputError, optional
from visviva.physics.bodies import SKELETONS, Body, human
from visviva.physics.bodies.mesh import DENSITY, mesh_inertia

KINDS = {(6890, 24): "smpl", (6890, 52): "smplh", (10475, 55): "smplx"}
"""Models by their numbers of vertices and joints."""
SITES = {"smpl": "smpl.is.tue.mpg.de", "smplh": "mano.is.tue.mpg.de", "smplx": "smpl-x.is.tue.mpg.de"}
"""Where the licensed files are handed out, after registration."""
BYTES = 2 << 30
"""Largest model that is read, unpacked [bytes]."""
NEEDED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


@dataclass(frozen=True)
class SMPLModel:
    """A model of the SMPL family, in float32.

    Attributes:
        kind: smpl, smplh or smplx.
        template: mesh of the mean shape, (v, 3) [m].
        directions: how each shape coefficient moves it, (v, 3, s).
        regressor: joints from vertices, (j, v).
        weights: of skinning, (v, j).
        faces: (f, 3).
        parents: of the joints, -1 for the root.
        arrays: all arrays of the file that the `smplx` package needs, by name.
    """

    kind: str
    template: Float[Tensor, "v 3"]
    directions: Float[Tensor, "v 3 s"]
    regressor: Float[Tensor, "j v"]
    weights: Float[Tensor, "v j"]
    faces: Int[Tensor, "f 3"]
    parents: tuple[int, ...]
    arrays: dict[str, np.ndarray]

    def to(self, *where: torch.device | torch.dtype | str) -> SMPLModel:
        """Return the model on a device, or its numbers in a dtype."""
        names = ("template", "directions", "regressor", "weights")
        moved = {name: getattr(self, name).to(*where) for name in names}
        return replace(self, **moved, faces=self.faces.to(moved["template"].device))

    def mesh(self, betas: Float[Tensor, " b"] | None = None) -> Float[Tensor, "v 3"]:
        """Return the vertices at rest [m] of a shape; coefficients that are not given are 0.

        Raises:
            InputError: more coefficients than the file has, or ones that are not finite.
        """
        if betas is None:
            return self.template
        if betas.ndim != 1 or len(betas) > self.directions.shape[-1] or not bool(betas.isfinite().all()):
            raise InputError(
                f"betas of the shape {tuple(betas.shape)}; a vector of up to {self.directions.shape[-1]} finite numbers "
                "is wanted"
            )
        return self.template + self.directions[..., : len(betas)] @ betas.to(self.template)

    def joints(self, betas: Float[Tensor, " b"] | None = None) -> Float[Tensor, "j 3"]:
        """Return the joints at rest [m] of a shape."""
        return self.regressor @ self.mesh(betas)

    def body(
        self,
        betas: Float[Tensor, " b"] | None = None,
        masses: str = "deleva",
        mass: float | None = None,
        density: float = DENSITY,
        **options: Any,
    ) -> Body:
        """Return the `Body` of a shape, differentiable with respect to it.

        Jaw, eyes and fingers of SMPL-H and SMPL-X are welded to the body: it has 24 links of SMPL, or the first 22.

        Args:
            betas: shape coefficients.
            masses: deleva, or volume: those of the mesh, of one density.
            mass: of the whole body [kg]; with volume it replaces the density.
            density: of the volume [kg/m^3].
            options: of `visviva.physics.bodies.human`: sex, stature, welded, up, armature.

        Raises:
            InputError: an unknown way to find masses, and what `human` and `mesh_inertia` refuse.

        Example::

            body = read_smpl("SMPL_MALE.npz").body(betas, sex=1.0)
        """
        if masses not in ("deleva", "volume"):
            raise InputError(f"masses is {masses!r}; deleva or volume")
        vertices = self.mesh(betas)
        joints = self.regressor @ vertices
        kept = 24 if self.kind == "smpl" else 22
        body = human(joints[:kept], mass=mass, **options)
        return body if masses == "deleva" else self._filled(body, vertices, joints[:kept], mass, density)

    def _filled(self, body: Body, vertices: Tensor, joints: Tensor, mass: float | None, density: float) -> Body:
        """Replace the masses of a body by those of the mesh; welded links leave theirs to what carries them."""
        owner = list(range(len(body)))
        for link, kind in enumerate(body.joints):
            owner[link] = owner[body.parents[link]] if kind == "weld" else link
        for joint in range(len(body), len(self.parents)):
            owner.append(owner[self.parents[joint]])
        index = torch.tensor(owner, device=vertices.device)
        weights = vertices.new_zeros(len(vertices), len(body)).index_add(1, index, self.weights)
        values = mesh_inertia(vertices, self.faces, weights, joints, body.parents, body.names, density)
        scale = 1.0 if mass is None else mass / values[0].sum()
        return replace(body, mass=values[0] * scale, com=values[1], inertia=values[2] * scale)

    def smplx(self, **options: Any) -> Any:
        """Return the model as a module of the `smplx` package, to pose and skin it.

        Args:
            options: of the class (`smplx.SMPL`, `SMPLH` or `SMPLX`), such as ``batch_size`` or ``use_pca``.

        Raises:
            InputError: the package is not installed (extra ``smpl``; it has its own, non-commercial licence).

        Example::

            posed = model.smplx()(betas=betas[None], body_pose=pose)  # .vertices, .joints
        """
        smplx = optional("smplx", "smpl")
        data = optional("smplx.utils", "smpl").Struct(**self.arrays)
        options = {"num_betas": min(10, self.directions.shape[-1])} | options
        if self.kind == "smpl":
            return smplx.SMPL("", data_struct=data, **options)
        if self.kind == "smplh":
            return smplx.SMPLH("", data_struct=data, **options)
        with tempfile.TemporaryDirectory() as folder:  # this class takes files only; ours holds plain arrays
            path = Path(folder) / "SMPLX_NEUTRAL.npz"
            np.savez(path, **self.arrays)  # type: ignore[arg-type]
            return smplx.SMPLX(str(path), ext="npz", **options)


def read_smpl(path: str | Path) -> SMPLModel:
    """Return the SMPL, SMPL-H or SMPL-X model of an npz file.

    Raises:
        InputError: a file that is not there (the message says where to get one, and how to make a test model), a pickle (the
            message says how to convert it), arrays that are missing, pickled, of wrong shapes or not finite.

    Example::

        joints = read_smpl("SMPLX_NEUTRAL.npz").joints(torch.zeros(10))  # (55, 3) m
    """
    path = Path(path)
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(f"{path}: {PICKLED}")
    if not path.is_file():
        raise InputError(f"{path}: no such file. {MISSING}")
    arrays = _arrays(path)
    shape = (arrays["v_template"].shape[0], arrays["weights"].shape[-1])
    if shape not in KINDS:
        known = ", ".join(f"{v} and {j} ({kind})" for (v, j), kind in KINDS.items())
        raise InputError(f"{path}: {shape[0]} vertices and {shape[1]} joints are no model of the family; those have {known}")
    kind = KINDS[shape]
    _check(path, arrays, *shape)
    parents = tuple(-1 if p < 0 or p >= shape[1] else int(p) for p in arrays["kintree_table"][0].astype(np.int64))
    if parents[:22] != SKELETONS["smpl"].parents[:22] or any(not 0 <= p < i for i, p in enumerate(parents) if i):
        raise InputError(f"{path}: its joints are not in the order of the SMPL family (kintree_table {list(parents)})")
    tensors = {
        key: torch.tensor(arrays[key], dtype=torch.float32) for key in ("v_template", "shapedirs", "J_regressor", "weights")
    }
    return SMPLModel(
        kind=kind,
        template=tensors["v_template"],
        directions=tensors["shapedirs"],
        regressor=tensors["J_regressor"],
        weights=tensors["weights"],
        faces=torch.tensor(arrays["f"].astype(np.int64)),
        parents=parents,
        arrays=arrays,
    )


PICKLED = (
    "pickles run code when they are read, and are not opened here. Convert it once, where you trust the file (with chumpy "
    "and scipy installed): python -c \"import pickle, numpy as n; d = pickle.load(open('model.pkl', 'rb'), encoding='latin1'); "
    "n.savez('model.npz', **{k: n.array(d[k].todense() if hasattr(d[k], 'todense') else d[k]) for k in "
    f'{NEEDED}}})"'
)
MISSING = (
    "The models of the SMPL family are licensed: register and download one at "
    + ", ".join(f"{site} ({kind})" for kind, site in SITES.items())
    + ". To try things without one, write a test model of the same format: "
    "visviva.data.bodies.write_test_model('model.npz', kind='smpl')"
)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file that are numbers; others (SMPL-X's pickled tables of names) are left alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not an npz file ({error})") from error
    if size > BYTES:
        raise InputError(f"{path}: {size / 2**30:.1f} GiB unpacked; models are read up to {BYTES >> 30} GiB")
    wanted = (*NEEDED, *(f"hands_{what}{side}" for what in ("mean", "components") for side in "lr"))
    wanted += ("lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
    found = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in wanted:
            if key in archive.files:
                try:
                    found[key] = archive[key]
                except (ValueError, zipfile.BadZipFile, EOFError) as error:
                    raise InputError(
                        f"{path}: {key!r} is damaged or pickled ({error}); save it as a plain array of numbers"
                    ) from error
    missing = [key for key in NEEDED if key not in found]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)} in it; a model of the SMPL family has {', '.join(NEEDED)}")
    if found["v_template"].ndim != 2 or found["weights"].ndim != 2:
        raise InputError(f"{path}: v_template and weights are matrices in a model of the SMPL family")
    return found


def _check(path: Path, arrays: dict[str, np.ndarray], vertices: int, joints: int) -> None:
    shapes: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
        "f": (None, 3),
    }
    for key, shape in shapes.items():
        found = arrays[key].shape
        if len(found) != len(shape) or any(b is not None and a != b for a, b in zip(found, shape, strict=True)):
            raise InputError(
                f"{path}: {key} has the shape {found}; {tuple('any' if n is None else n for n in shape)} is wanted"
            )
        if arrays[key].dtype.kind not in "fiu" or not np.isfinite(arrays[key]).all():
            raise InputError(f"{path}: {key} holds what is no finite number")
    if arrays["f"].min() < 0 or arrays["f"].max() >= vertices:
        raise InputError(f"{path}: its faces name vertices that are not there")
