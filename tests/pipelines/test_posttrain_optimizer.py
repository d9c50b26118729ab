"""The optimizer of a recipe: names, options, groups by pattern, and the errors that name what is wrong."""

from typing import get_args

import pytest
import torch

from visviva.configs.posttrain import Optimizer
from visviva.errors import InputError
from visviva.optim import BY_NAME, NAMO, AdamW
from visviva.pipelines.posttrain.optimizer import build


def parameters():
    shapes = {"blocks.0.to_q.weight": (4, 4), "blocks.0.to_q.bias": (4,), "norm.weight": (4,)}
    found = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    for parameter in found.values():
        parameter.grad = torch.ones_like(parameter)
    return found


def test_recipes_know_every_optimizer():
    assert set(get_args(Optimizer.model_fields["name"].annotation)) == set(BY_NAME)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_optimizer_is_built_and_moves_every_parameter(name):
    tensors = parameters()
    before = {n: p.detach().clone() for n, p in tensors.items()}
    build(tensors, Optimizer(name=name, lr=1e-2)).step()
    assert all(not torch.equal(before[n], p) for n, p in tensors.items())


def test_first_matching_group_wins_and_the_rest_keeps_the_defaults():
    groups = [{"pattern": "bias|norm", "options": {"weight_decay": 0.0}}, {"pattern": "blocks", "lr": 1e-3}]
    optimizer = build(parameters(), Optimizer(lr=1e-2, weight_decay=0.1, groups=groups))
    assert isinstance(optimizer, AdamW)
    found = [(g["param_names"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(["blocks.0.to_q.bias", "norm.weight"], 1e-2, 0.0), (["blocks.0.to_q.weight"], 1e-3, 0.1)]


def test_options_reach_the_optimizer_also_as_written_on_the_command_line():
    optimizer = build(parameters(), Optimizer(name="namo", options={"momentum": 0.8, "adamw_betas": "[0.5, 0.6]"}))
    assert isinstance(optimizer, NAMO)
    assert optimizer.param_groups[0]["momentum"] == 0.8
    assert optimizer.param_groups[0]["adamw_betas"] == (0.5, 0.6)


def test_states_in_eight_bits_by_name():
    tensors = parameters()
    optimizer = build(tensors, Optimizer(options={"state_dtype": "int8"}))
    optimizer.step()
    assert optimizer.state[tensors["norm.weight"]]["exp_avg"].dtype == torch.int8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"groups": [{"pattern": "norm", "options": {"state_dtype": "int8"}}]},
            ["optimizer.groups[0].options", "'state_dtype'"],
        ),
        ({"options": {"state_dtype": "int4"}}, ["optimizer.options.state_dtype", "'int4'", "int8"]),
        ({"options": {"beta": 0.9}}, ["optimizer.options (adamw)", "'beta'", "betas"]),
        ({"groups": [{"pattern": "decoder"}]}, ["optimizer.groups[0].pattern", "'decoder'", "none of the 3"]),
        ({"groups": [{"pattern": "("}]}, ["optimizer.groups[0].pattern", "regular expression"]),
        ({"options": {"betas": [0.9, 1.5]}}, ["beta", "1.5", "allowed"]),
        ({"groups": [{"pattern": "norm", "options": {"momentum": 1}}]}, ["optimizer.groups[0].options", "'momentum'"]),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(InputError) as error:
        build(parameters(), Optimizer(**settings))
    assert all(word in str(error.value) for word in words)
