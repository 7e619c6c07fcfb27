"""The studies: their pages are current, and the commands that committed results name still run."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path

import pytest

from recipes.studies import __main__ as studies
from zoo.errors import ZooError


@pytest.mark.usefixtures("registered_here_only")
def test_all_pages_of_all_studies_are_current():
    studies.main(["--check"])


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


def options_of_committed_commands() -> dict[str, set[str]]:
    """From every module that the result of a study names in its command to the options that it was given."""
    found: dict[str, set[str]] = {}
    folder = Path(studies.__file__).parent
    for file in (file for name in ("ablation", "health", "speed") for file in folder.glob(f"{name}/*/**/*.json")):
        _, _, module, *arguments = shlex.split(json.loads(file.read_text())["command"])
        found.setdefault(module, set()).update(word for word in arguments if word.startswith("--"))
    return found


COMMANDS = options_of_committed_commands()


@pytest.mark.parametrize("module", ["recipes.ablate", "recipes.bench", "recipes.health"])
def test_the_commands_of_committed_results_still_exist(module, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    said = capsys.readouterr().out
    assert set(COMMANDS) == {"recipes.ablate", "recipes.bench", "recipes.health"}
    assert [option for option in COMMANDS[module] if f"{option} " not in said] == []
