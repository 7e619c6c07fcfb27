"""`snn-zoo`: what it says without PyTorch is what the commands say, quickly, and whatever folder it is started from."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import tomllib

import pytest
from conftest import ROOT, assert_one_error, run_module

from leaderboard import answers
from leaderboard.command import COMMANDS, LIST, main, short_forms
from recipes.processes import same_modules
from zoo import list_models, provenance

# What an installed script holds, and what it says about PyTorch at its end.
SCRIPT = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from leaderboard.command import main
sys.argv = ["snn-zoo", *sys.argv[1:]]
main()
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with modules of the user's own, by the names of ours."""
    for name in ("zoo.py", "export.py", "leaderboard.py", "recipes/__init__.py", "recipes/train.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('of the user')")
    return tmp_path


def script(folder, *words):
    """Standard output, error and seconds of `snn-zoo WORDS` as installed: without the working directory in its path."""
    start, environment = time.perf_counter(), os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", SCRIPT, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done, time.perf_counter() - start


def test_every_answer_is_what_the_commands_say():
    done = run_module("leaderboard.answers", "--check")  # without what other tests have registered here
    assert done.returncode == 0, done.stderr


def test_answers_that_are_stale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(answers, "ANSWERS", tmp_path)
    monkeypatch.setattr(answers, "render", lambda: {"a.help.txt": "--one --two", "b.help.txt": "x"})
    for name, text in (("a.help.txt", "--one"), ("b.help.txt", "x\n"), ("c.help.txt", "of no command any more")):
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as exit_:
        answers.main(["--check"])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("stale: a.help.txt, c.help.txt; run python -m leaderboard.answers")
    answers.main(["--render"])
    answers.main(["--check"])
    monkeypatch.setattr(
        answers, "render", lambda: {LIST: "a 0.20\nb 0.16", "a.help.txt": "--one --two", "b.help.txt": "x"}
    )
    (tmp_path / LIST).write_text("a 0.16\nb 0.20")
    with pytest.raises(SystemExit):
        answers.main(["--check"])
    answers.main(["--render"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.help.txt", "b.help.txt", LIST]


def test_every_command_is_one():
    for command in COMMANDS.values():
        assert callable(importlib.import_module(command.module).main)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"snn-zoo": "leaderboard.command:main"}


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS), ["push", "x", "-h"]])
def test_help_needs_no_pytorch(words, capsys):
    main(words)
    out = capsys.readouterr().out
    assert out.startswith(f"usage: snn-zoo {words[0] if len(words) > 1 else 'COMMAND'}")
    assert "python -m" not in out


def test_a_command_below_another_has_its_own_help(capsys):
    for words, start in (
        (["leaderboard", "verify", "--help"], "usage: snn-zoo leaderboard verify"),
        (["leaderboard", "--help", "verify"], "usage: snn-zoo leaderboard [-h]"),
        (["leaderboard", "../verify", "--help"], "usage: snn-zoo leaderboard [-h]"),
    ):
        main(words)
        assert capsys.readouterr().out.startswith(start)


def test_help_and_list_leave_torch_alone(elsewhere):
    for words in (["--help"], ["train", "--help"], ["list"]):
        done, _ = script(elsewhere, *words)
        assert done.returncode == 0
        assert done.stderr == "False\n"


@pytest.mark.slow
def test_help_and_list_are_quick_from_any_folder(elsewhere):
    """Help in a second and the list in three, however slow the machine: the fastest of a few."""
    for words, limit in ((["--help"], 1), (["train", "--help"], 1), (["list"], 3)):
        runs = [script(elsewhere, *words) for _ in range(3)]
        for done, _ in runs:
            assert done.returncode == 0
            assert done.stderr == "False\n"
        assert min(seconds for _, seconds in runs) < limit


def test_the_list_is_filtered(capsys):
    main(["list"])
    whole = capsys.readouterr().out
    main(["list", "svgg11*", "sdt_2_64"])
    some = capsys.readouterr().out
    rows = [line.split()[0] for line in some.split("\n\n")[0].splitlines()]
    assert rows == ["model", *list_models(["svgg11*", "sdt_2_64"])]
    assert set(some.splitlines()) < set(whole.splitlines())
    assert "arXiv" not in whole


def test_an_unknown_command_is_one_error(capsys):
    for words, hint in ((["trian"], "did you mean train?"), (["bench_ort"], "did you mean bench-ort?"), ([], "no com")):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert hint in captured.err
    with pytest.raises(SystemExit):
        main(["\x1b[31m" + "x" * 1000])
    assert len(capsys.readouterr().err) < 400


def test_errors_name_the_short_forms(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["validate", "--nosuch"])
    assert exit_.value.code == 2
    assert "(see snn-zoo validate --help)" in capsys.readouterr().err
    said = short_forms("`python -m export` and python -m export.bench_ort, python -m zoo.hub push; python -m zoo")
    assert said == "`snn-zoo export` and snn-zoo bench-ort, snn-zoo push; python -m zoo"


def test_a_command_runs_from_a_folder_with_modules_of_the_users(elsewhere):
    (elsewhere / "result.json").write_text(json.dumps({}))
    done, _ = script(elsewhere, "compare", "result.json")
    assert_one_error(done, "result.json")


def test_processes_that_a_command_starts_find_our_modules(elsewhere, monkeypatch):
    code = "import importlib.util; print(importlib.util.find_spec('recipes').origin)"
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for variables, found in (({}, elsewhere), (same_modules(), ROOT)):
        command = [sys.executable, "-c", code]  # looks where `python -m` does
        env = os.environ | variables
        done = subprocess.run(command, cwd=elsewhere, env=env, check=True, capture_output=True, text=True)
        assert done.stdout == f"{found}/recipes/__init__.py\n"


@pytest.mark.parametrize(
    ("world", "expected"), [("1", "snn-zoo train x"), ("4", "torchrun --nproc-per-node 4 --no-python snn-zoo train x")]
)
def test_a_recorded_command_can_be_typed_again(world, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/snn-zoo", "train", "x"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert provenance.command() == expected
