"""Every example in a docstring of the optimizers runs as written; at hand are ``model``, ``optimizer``, ``loss``, ``data``."""

import ast
import doctest
import importlib
import pkgutil
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import visviva.optim

MODULES = [importlib.import_module(f"visviva.optim.{m.name}") for m in pkgutil.iter_modules(visviva.optim.__path__)]


def docstrings(module):
    """Yield (name, docstring) of the module and of everything defined in it, from its source."""
    tree = ast.parse(Path(module.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            yield f"{module.__name__.split('.')[-1]}.{getattr(node, 'name', '')}", ast.get_docstring(node)


def block(doc):
    """Return the indented code after ``Example::``."""
    lines = doc.split("Example::", 1)[1].splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("    ")), len(lines))
    return textwrap.dedent("\n".join(lines[:end]))


FOUND = [(name, module, doc) for module in MODULES for name, doc in docstrings(module)]
BLOCKS = {name: (module, block(doc)) for name, module, doc in FOUND if "Example::" in doc and ">>>" not in block(doc)}
SESSIONS = {name: (module, doc) for name, module, doc in FOUND if ">>>" in doc}


class Adapted(nn.Module):
    """A network with an embedding, hidden matrices, a head and an adapter."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.lora_A, self.lora_B = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x):
        x = self.embed(x)
        return self.head((self.hidden(x) + self.lora_B(self.lora_A(x))).tanh())


def at_hand():
    model = Adapted()

    def loss(batch):
        return (model(batch) - 1).square().mean()

    data = [torch.randint(0, 5, (6,)) for _ in range(3)]
    return dict(model=model, loss=loss, data=data, optimizer=visviva.optim.SGDM(model.named_parameters(), lr=0.01))


def namespace(module):
    return {**{n: getattr(visviva.optim, n) for n in visviva.optim.__all__}, "torch": torch, "nn": nn, **vars(module)}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, code = BLOCKS[name]
    assert code.strip()
    given = at_hand()
    names = {**namespace(module), **given}
    exec(compile(code, name, "exec"), names)
    optimizer = names["optimizer"]
    if optimizer is not given["optimizer"] and isinstance(optimizer, torch.optim.Optimizer):
        before = [p.detach().clone() for p in names["model"].parameters()]
        optimizer.zero_grad()
        value = names["loss"](names["data"][0])
        if isinstance(optimizer, visviva.optim.MKORH):
            optimizer.observe(value)
        value.backward()
        optimizer.step()
        assert any((p != b).any() for p, b in zip(names["model"].parameters(), before, strict=True))


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_prints_what_it_says(name):
    """With what its module has at hand, as ``python -m doctest`` does."""
    module, doc = SESSIONS[name]
    session = doctest.DocTestParser().get_doctest(doc, dict(vars(module)), name, module.__file__, 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(session)
    assert result.attempted
    assert not result.failed


def test_examples_are_found():
    assert len(BLOCKS) >= 25
    assert len(SESSIONS) >= 5
