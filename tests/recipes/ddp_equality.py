"""Five training steps in float64 with normalisation in evaluation mode; started alone or by torchrun, same numbers.

Saves the five losses and the last step's gradients under several scaling rules to the path given; then three ordinary
steps, after which the ranks must hold equal weights.
"""

from __future__ import annotations

import sys

import torch
from conftest import ROOT, tiny
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import zoo
from recipes.processes import start_processes, stop_processes
from recipes.run import save_state
from zoo.scaling import mean_over_processes

RULES = [
    *({"name": name} for name in ("causal_trace", "channel", "mean_preserving", "ltp_ltd", "local_error")),
    *({"name": name, "of": "window"} for name in ("mean_scale", "norm_scale", "permuted")),
    {"name": "window", "every": 2},
    {"name": "own_rule"},
]
zoo.load_plugin(ROOT / "recipes" / "examples" / "everything.py")
rank, world, _ = start_processes("cpu")


def train(rule):
    """Losses of five steps, the last one's gradients, and the network."""
    torch.manual_seed(0)
    neuron = "adaptive" if rule["name"] == "own_rule" else "lif"
    model = tiny(scaling=rule, neuron=neuron).double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.running_var.fill_(0.3)
    network = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(5):
        x, y = torch.randn(8, 3, 12, 12, dtype=torch.float64), torch.randint(10, (8,))
        optimizer.zero_grad()
        loss = cross_entropy(network(x[rank::world]), y[rank::world])
        loss.backward()
        losses.append(float(mean_over_processes(loss.detach())))
        optimizer.step()
    return losses, {key: p.grad.clone() for key, p in model.named_parameters()}, model, network, optimizer


def main():
    state = {}
    for rule in RULES:
        losses, gradients, model, network, optimizer = train(rule)
        state["-".join(map(str, rule.values()))] = {"losses": losses, "gradients": gradients}

    # Ordinary training, with normalisation over each process's own batch: the weights stay equal.
    network.train()
    for _ in range(3):
        x, y = torch.randn(8, 3, 12, 12, dtype=torch.float64), torch.randint(10, (8,))
        optimizer.zero_grad()
        cross_entropy(network(x[rank::world]), y[rank::world]).backward()
        optimizer.step()
    for p in model.parameters():
        torch.testing.assert_close(mean_over_processes(p.detach()), p.detach(), rtol=0, atol=0)

    if rank == 0:
        save_state(sys.argv[1], state)


main()
stop_processes()
