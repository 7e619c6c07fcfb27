"""The studies: their pages are current, and the commands that committed results name still run."""

from __future__ import annotations

import copy
import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import zoo
from recipes.studies import __main__ as studies
from zoo.errors import ZooError


@pytest.mark.usefixtures("registered_here_only")
def test_all_pages_of_all_studies_are_current():
    studies.main(["--check"])


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.usefixtures("registered_here_only")
def test_backpropagation_by_rates(steps):
    """At one step it is the full one; at several the same forward, and of mean logits the same gradient up to the head,
    which has no neurons behind it."""
    zoo.load_plugin(Path(studies.HERE, "ablation", "rate_based.py"))
    by_rate = zoo.create_model("rate_max_resnet18_w16", timesteps=steps, surrogate={"name": "triangle", "width": 2.0})
    plugin: Any = sys.modules[type(by_rate).__module__]
    full = copy.deepcopy(by_rate).double().train()
    by_rate = copy.deepcopy(full)
    images, labels = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.arange(8)
    logits = {}
    for network, run in ((full, super(type(full), full).forward), (by_rate, super(type(full), by_rate).forward)):
        steps_of = run(images, per_step=True) if network is full else plugin.rate_logits(run, network, images)
        F.cross_entropy(steps_of.mean(0), labels).backward()
        logits[network] = steps_of.detach()
    torch.testing.assert_close(logits[by_rate], logits[full], rtol=0, atol=0)
    torch.testing.assert_close(by_rate.state_dict(), full.state_dict(), rtol=1e-12, atol=1e-12)
    assert by_rate.timesteps == steps
    for (name, weight), other in zip(full.named_parameters(), by_rate.parameters(), strict=True):
        if steps == 1 or name.startswith("fc."):
            torch.testing.assert_close(other.grad, weight.grad, rtol=1e-9, atol=1e-12)
        else:
            assert F.cosine_similarity(other.grad.flatten(), weight.grad.flatten(), 0) > 0


@pytest.mark.parametrize("name", ["health", "speed"])
def test_a_page_out_of_date_is_found_and_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "HERE", tmp_path)
    render = getattr(studies, f"render_{name}")
    (page := tmp_path / name / "README.md").parent.mkdir()
    for text in (None, "of yesterday"):
        if text:
            page.write_text(text)
        with pytest.raises(ZooError, match=r"README\.md .*: python -m recipes\.studies --render writes it"):
            render(True)
    render(False)
    render(True)


def test_the_commands_of_committed_results_still_exist(capsys):
    given: dict[str, set[str]] = {}
    folder = Path(studies.__file__).parent
    for file in (f for name in ("ablation", "health", "speed") for f in folder.glob(f"{name}/*/**/*.json")):
        _, _, module, *words = shlex.split(json.loads(file.read_text())["command"])
        given.setdefault(module, set()).update(word for word in words if word.startswith("--"))
    assert set(given) == {"recipes.ablate", "recipes.bench", "recipes.health"}
    for module, options in given.items():
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        said = capsys.readouterr().out
        assert [option for option in options if f"{option} " not in said] == [], module
