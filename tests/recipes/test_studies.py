"""The studies: their pages are current, and the commands that committed results name still run."""

from __future__ import annotations

import pytest
from conftest import run_module

from recipes.studies import __main__ as studies
from recipes.studies.health import health
from recipes.studies.scaling_cost import scaling_cost
from recipes.studies.speed import page as speed
from zoo.errors import ZooError


def test_all_pages_of_all_studies_are_current():
    studies.main(["--check"])


@pytest.mark.parametrize("study", [health, scaling_cost, speed], ids=lambda study: study.__name__.rsplit(".", 1)[1])
def test_a_page_out_of_date_is_found_and_written(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    for text in (None, "of yesterday"):
        if text:
            (tmp_path / "README.md").write_text(text)
        with pytest.raises(ZooError, match=r"README\.md .*: python -m recipes\.studies --render writes it"):
            studies.main(["--check"])
    study.render()
    studies.main(["--check"])


@pytest.mark.parametrize(
    "command",
    [
        "ablate recipes/ablations/cpu_search_lr.yaml --check",
        "speed_table --check",
        "health --check",
        "scaling_cost --check",
    ],
)
def test_the_commands_of_committed_results_run(command):
    module, *arguments = command.split()
    done = run_module(f"recipes.{module}", *arguments)
    assert done.returncode == 0, done.stderr
