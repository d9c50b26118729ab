"""The house rules of the package, read from its source: floors, lazy imports, no pickle, documented names, valid recipes."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "visviva"
MODULES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((PACKAGE / "configs" / "recipes").glob("*.yaml"))

GROUND = {"errors", "exit"}
BELOW = {  # what a room may import of the package, besides itself
    "errors": set(),
    "exit": set(),
    "optim": GROUND,
    "physics": GROUND,
    "models": GROUND | {"optim", "physics"},
    "data": GROUND | {"physics"},
    "eval": GROUND | {"optim", "physics", "models", "data"},
    "configs": GROUND | {"optim", "physics", "models", "data", "eval", "pipelines"},
    "pipelines": GROUND | {"optim", "physics", "models", "data", "eval", "configs"},
    "cli": GROUND | {"configs", "pipelines"},
    "__main__": {"cli", "exit"},
    "__init__": set(),
}
THIRD_PARTY_AT_THE_TOP = {  # of rooms that must be light; the others are checked by what importing them brings in
    "errors": set(),
    "exit": set(),
    "optim": {"torch", "numpy", "jaxtyping"},
    "physics": {"torch", "numpy", "warp", "jaxtyping", "roma"},
    "configs": {"pydantic", "yaml", "tyro"},
    "cli": set(),
    "__init__": set(),
    "__main__": set(),
}
HEAVY = {"diffusers", "transformers", "peft", "newton", "mujoco", "av", "cv2", "matplotlib", "accelerate", "datasets", "bpy"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path, top_only: bool = False) -> list[tuple[int, str]]:
    """Every (line, dotted module) that a file imports; with ``top_only`` those that run when it is imported."""
    found: list[tuple[int, str]] = []
    nodes = list(tree(path).body) if top_only else list(ast.walk(tree(path)))
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; write the full name"
            base = node.module or ""
            found += [(node.lineno, f"{base}.{alias.name}" if base == "visviva" else base) for alias in node.names]
    return found


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(REPOSITORY)}:{line}"


def calls(path: Path) -> list[tuple[ast.Call, str]]:
    return [(node, ast.unparse(node.func)) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
class TestEveryModule:
    def test_nothing_reaches_up_a_floor(self, path):
        assert room(path) in BELOW, f"{path}: a room that the design does not know"
        allowed = BELOW[room(path)] | {room(path)}
        inside = [(line, name.split(".")[1]) for line, name in imports(path) if name.startswith("visviva.")]
        up = [f"{where(path, line)}: imports {other}" for line, other in inside if other not in allowed | {"__version__"}]
        assert not up, "\n".join(up)

    def test_light_rooms_import_nothing_heavy_at_the_top(self, path):
        if room(path) not in THIRD_PARTY_AT_THE_TOP:
            pytest.skip("checked by importing it")
        allowed = THIRD_PARTY_AT_THE_TOP[room(path)] | sys.stdlib_module_names | {"visviva"}
        top = imports(path, top_only=True)
        heavy = [where(path, line) + " " + name for line, name in top if name.split(".")[0] not in allowed]
        assert not heavy, "import it inside the function that uses it:\n" + "\n".join(heavy)

    def test_every_public_name_is_documented(self, path):
        bare = [] if ast.get_docstring(tree(path)) else [where(path, 1) + " the module"]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Module | ast.ClassDef) and not getattr(node, "name", "").startswith("_"):
                inherited = inherited_documentation(node) if room(path) == "optim" else set()
                names = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
                names = [n for n in names if n.name not in inherited]
                bare += [where(path, n.lineno) + " " + n.name for n in names if not ast.get_docstring(n)]
        assert not bare, "\n".join(bare)

    def test_no_pickle_is_ever_loaded(self, path):
        bad = [where(path, line) + " " + name for line, name in imports(path) if name.split(".")[0] in PICKLERS]
        for call, name in calls(path):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            numpy_load = name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False"
            torch_load = name == "torch.load" and keywords.get("weights_only") != "True"
            if numpy_load or torch_load or name.endswith(("accelerator.load_state", "read_pickle")):
                bad.append(where(path, call.lineno) + " " + name)
        assert not bad, "safetensors, np.load(allow_pickle=False), or torch.load(weights_only=True):\n" + "\n".join(bad)

    def test_no_assert_and_no_swallowed_exception(self, path):
        bad = [where(path, n.lineno) + " assert" for n in ast.walk(tree(path)) if isinstance(n, ast.Assert)]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in node.body)
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                used = any(isinstance(s, ast.Raise) or (isinstance(s, ast.Name) and s.id == node.name) for s in ast.walk(node))
                if silent or (broad and not used):
                    bad.append(where(path, node.lineno) + " an exception is swallowed")
        suppressing = [call for call, name in calls(path) if name.endswith("suppress") and "Exception" in ast.unparse(call)]
        bad += [where(path, call.lineno) + " suppresses every exception" for call in suppressing]
        assert not bad, "\n".join(bad)

    def test_the_file_is_named_after_a_noun(self, path):
        assert path.stem not in ("utils", "helpers", "common", "misc", "util")


def inherited_documentation(node: ast.AST) -> set[str]:
    """Methods of transforms are documented once, in the class that declares them: a subclass need not say it again."""
    if not isinstance(node, ast.ClassDef) or not node.bases:
        return set()
    base = next(n for n in tree(PACKAGE / "optim" / "transform.py").body if getattr(n, "name", "") == "Transform")
    return {n.name for n in base.body if isinstance(n, ast.FunctionDef) and ast.get_docstring(n)} - {"__call__"}


PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "_pickle"}


def loaded_by(statements: str) -> set[str]:
    """The top-level modules that are loaded after a fresh interpreter has run the statements."""
    code = f"{statements}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_bare_package_and_the_command_line_load_nothing_heavy():
    light = loaded_by("import visviva, visviva.cli, visviva.errors")
    assert not light & (HEAVY | {"torch", "numpy", "pydantic", "tyro", "yaml"})
    helped = loaded_by("import visviva.cli; visviva.cli.main(['--help'])")
    assert not helped & (HEAVY | {"torch", "numpy", "tyro"})


def test_recipe_classes_load_no_torch():
    from visviva.configs.shipped import verbs

    classes = "\n".join(f"import visviva.configs.{verb}" for verb in verbs())
    assert not loaded_by(classes) & (HEAVY | {"torch", "numpy"})


@pytest.mark.parametrize("name", ["optim", "physics", "models", "data", "eval", "pipelines"])
def test_a_room_loads_without_its_heavy_packages(name):
    if not (PACKAGE / name / "__init__.py").is_file():
        pytest.fail(f"visviva/{name}/__init__.py is missing")
    assert not loaded_by(f"import visviva.{name}") & HEAVY


def test_every_pipeline_that_runs_has_a_recipe_class():
    from visviva.configs.schema import Recipe
    from visviva.configs.shipped import recipe_class, verbs

    for path in sorted((PACKAGE / "pipelines").iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if not source.is_file() or path.stem.startswith("__"):
            continue
        if any(isinstance(n, ast.FunctionDef | ast.ImportFrom) and "run" in names_of(n) for n in tree(source).body):
            assert path.stem in verbs(), f"pipelines/{path.stem} has run() but configs/{path.stem}.py does not stand"
    for verb in verbs():
        recipe = recipe_class(verb)
        assert issubclass(recipe, Recipe)
        assert recipe.model_fields["verb"].default == verb
        assert verb == "doctor" or any(p.stem.startswith(f"{verb}-") for p in RECIPES), f"no shipped recipe for {verb}"


def names_of(node: ast.AST) -> set[str]:
    return {node.name} if isinstance(node, ast.FunctionDef) else {alias.asname or alias.name for alias in node.names}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_says_what_it_is(path):
    from visviva.configs.shipped import check, listing

    assert path.stem.startswith(check(path).verb + "-")
    line = next(line for line in listing().splitlines() if line.startswith(path.stem + " "))
    assert len(line.split(maxsplit=1)[1]) > 10, f"{path.name} needs a first comment that says what it is"


def repository_files() -> list[Path]:
    """The files of the repository: tracked ones, or new ones that are not ignored."""
    if (REPOSITORY / ".git").exists():
        command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]
    skip = re.compile(r"/(\.venv[^/]*|__pycache__|\.[a-z_]+_cache|[^/]*\.egg-info|build|dist|runs|outputs)/")
    return [p for p in REPOSITORY.rglob("*") if p.is_file() and not skip.search(p.as_posix())]


def test_no_file_names_a_machine_path_or_a_package_registry():
    machine = r"(?<![\w.])/(?:w[o]rk|o[p]t|r[o]ot|h[o]me/\w+)/"
    host = r"py[p]i\.org|pythonh[o]sted|downl[o]ad\.pytorch|c[o]nda\.anaconda|extra-ind[e]x-url"
    found = []
    for path in repository_files():
        if path.suffix in {".safetensors", ".mp4", ".png", ".jpg", ".npz", ".npy"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if re.search(f"{machine}|{host}", line):
                found.append(f"{where(path, number)}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_no_pickled_file_is_in_the_repository():
    pickled = [p for p in repository_files() if p.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib"}]
    assert not pickled


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def requirements() -> dict[str, Requirement]:
    lines = project()["dependencies"] + [r for group in project()["optional-dependencies"].values() for r in group]
    parsed = [Requirement(line) for line in lines]
    return {canonical(r.name): r for r in parsed if r.name != "visviva"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_imported_package_is_declared():
    owners = metadata.packages_distributions()
    declared = set(requirements())
    for path in MODULES:
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "visviva":
                continue
            top = "bpy" if top == "mathutils" else top  # it comes with Blender
            dists = {canonical(d) for d in owners.get(top, [])} or {canonical(top)}
            assert dists & declared, f"{where(path, line)}: {top} is not among the dependencies of pyproject.toml"


def test_constraints_pin_every_dependency_inside_its_range():
    lines = [x for x in (REPOSITORY / "constraints.txt").read_text().splitlines() if x.strip() and not x.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in lines), "exact public versions only"
    pins = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    assert pins["torch"] == "2.13.0"
    for name, requirement in requirements().items():
        if name == "bpy":  # optional, half a gigabyte: not part of the tested set
            continue
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} lies outside {requirement.specifier}"


def test_the_readme_and_ci_share_one_test_command():
    readme = (REPOSITORY / "README.md").read_text()
    commands = [line for line in readme.splitlines() if "pytest" in line and "pip install" in line]
    assert len(commands) == 1, "the README has one command that installs and runs the tests"
    found = subprocess.run([REPOSITORY / ".ci" / "run", "--print"], capture_output=True, text=True, check=True).stdout.strip()
    assert found == commands[0].strip()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
def test_every_test_checks_something(path):
    functions = {n.name: n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)}
    checking = {"raises", "warns", "fail", "gradcheck"}

    def checks(function: ast.FunctionDef) -> bool:
        for node in ast.walk(function):
            called = ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Assert) or called in checking or "assert" in called:
                return True
        return False

    for _ in functions:  # helpers that check, and helpers that call them
        checking |= {name for name, function in functions.items() if checks(function)}
    idle = [where(path, f.lineno) + " " + name for name, f in functions.items() if name[:5] == "test_" and name not in checking]
    assert not idle, "\n".join(idle)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name not in ("__main__.py", "blender_stage.py")], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_the_annotations_hold_under_the_type_checker(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    assert importlib.import_module(name).__doc__
