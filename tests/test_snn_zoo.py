"""`snn-zoo`: every command by one name, whatever folder it is started from."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from recipes.processes import same_modules
from snn_zoo import COMMANDS, main, short_forms
from zoo import provenance
from zoo.__main__ import describe


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with modules of the user's own, by the names of ours."""
    for name in ("zoo.py", "export.py", "leaderboard.py", "recipes/__init__.py", "recipes/train.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('of the user')")
    return tmp_path


def test_every_command_is_one():
    for command in COMMANDS.values():
        module = importlib.import_module(command.module)
        assert callable(module.main)
        assert callable(module.run)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"snn-zoo": "snn_zoo:main"}


def test_a_command_below_another_has_its_own_help(capsys):
    main(["leaderboard", "verify", "--help"])
    usage, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith("usage: snn-zoo leaderboard verify [-h]")
    assert {len(line) - len(line.lstrip()) for line in usage.splitlines()[1:]} == {usage.index("[-h]")}


SPOKEN = """
import contextlib, io, json, sys
from snn_zoo import main
answers = []
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(line.split())
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    answers.append([status, out.getvalue(), err.getvalue(), "torch" in sys.modules])
print(json.dumps(answers))
"""
WRONG = {
    "predict nosuch x.png": "unknown model 'nosuch'",
    "predict sresnet19_w16.t2_cifar10 nosuch.png": "no such file: nosuch.png",
    "finetune sresnet19_w16.t2_cifar10 nodata": "unknown data set 'nodata'",
    "export sresnet19_w16.t2_cifar10 -o x.onnx --layout flt": "did you mean flat",
    "export sresnet19_w16.t2_cifar10 -o x.onnx --timesteps 1000": "from 1 to 128, not 1000",
    "export sresnet19_w16.t2_cifar10 -o x.nir --to onnx": "--to onnx writes no .nir file",
    "demo out --port 99999": "--port must be from 0 to 65535, not 99999",
    "list sreznet19": "did you mean sresnet19",
    "info nosuch": "unknown model or rule 'nosuch'",
    "info sresnet19_w16.nosuch": "unknown tag of sresnet19_w16 'nosuch'",
    "train sresnet19_gs.t4_cifar11": "unknown recipe 'sresnet19_gs.t4_cifar11'; did you mean sresnet19_gs.t4_cifar10",
    "train quickstart --epochz 3": "--epochz",
    "train quickstart --model sresnet91": "unknown model 'sresnet91'",
    "train quickstart --model ../../x": "takes an architecture, not the checkpoint '../../x'",
    "train quickstart --model sresnet19_w16.t2_cifar10": "--init sresnet19_w16.t2_cifar10",
    "train quickstart --dataset cifar11": "did you mean cifar10",
    "train quickstart --dataset cifar10 --data-dir /nowhere": "'/nowhere': expected the folder cifar-10-batches-py",
    "train quickstart --spike-penalty 1 --grad-checkpointing": "spike_penalty needs the spikes that grad_checkpointing",
    "train sresnet19_w16.t2_cifar10 --timesteps 1000": "less than or equal to 128, not 1000",
    "validate sresnet19_w16.t2_cifar10 --dataset cifar11": "did you mean cifar10",
    "validate sresnet19_w16.t2_cifar10 --dataset digits --limit 0": "argument --limit: must be 1 or more, not 0",
    "validate sresnet19 --dataset digits": "no published weights",
    "validate nothing/here --dataset digits": "no checkpoint at nothing/here",
    "validate sresnet19_w16.t2_cifar10 --dataset digits --json zoo": "it is a directory",
    "compare nosuch.json": "no such file: nosuch.json",
    "ablate nosuch": "unknown plan 'nosuch'",
    "health nosuch": "unknown model 'nosuch'",
    "health --steps 6": "--steps must be a multiple of 4, not 6",
    "bench step --model sresnet19 --batch 0": "argument --batch: must be 1 or more, not 0",
    "bench inference --model svgg5 --scaling final_trace": "change a training step, not an inference",
    "bench-ort nosuch.onnx": "no such file: nosuch.onnx",
    "bench-ort pyproject.toml --runs 0": "timing runs",
    "leaderboard measure nosuch": "unknown model 'nosuch'",
    "leaderboard add nosuch.json": "no such file: nosuch.json",
    "leaderboard verify sresnet19.t2_cifar10": "unknown row 'sresnet19.t2_cifar10'; did you mean",
    "leaderboard serve --port 99999": "--port must be from 0 to 65535, not 99999",
    "push nosuch": "no run directory nosuch",
    "push nosuch --nosuch": "unrecognized arguments: --nosuch (see snn-zoo push --help)",
    "pull": "ORG/NAME",
}


def test_wrong_words_and_help_are_answered_without_pytorch():
    """In one process: it takes a quarter of a second each, and PyTorch some seconds."""
    right = ["--help", *(f"{name} --help" for name in COMMANDS), "list sresnet19*", "list --json --published"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SPOKEN]
    given = json.dumps([*WRONG, *right])
    done = subprocess.run(command, input=given, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    for (line, said), (status, out, err, _) in zip(WRONG.items(), answers, strict=False):
        assert (status, out, err.count("\n")) == (2, "", 1), line
        assert said in err
    for line, (status, out, err, _) in zip(right, answers[len(WRONG) :], strict=True):
        assert (status, err) == (0, ""), line
        assert out.startswith(f"usage: snn-zoo {line.removesuffix('--help').strip()}" if "--help" in line else "")
        assert out
        assert "python -m" not in out
    assert not any(loaded for *_, loaded in answers)


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


def test_errors_name_the_short_forms():
    said = short_forms("`python -m export` and python -m export.bench_ort, python -m zoo.hub push; python -m zoo")
    assert said == "`snn-zoo export` and snn-zoo bench-ort, snn-zoo push; python -m zoo"


def test_info_knows_what_python_m_zoo_knows(elsewhere):
    """As installed: without the working directory in its path, where modules of the user's have our names."""
    code = "from snn_zoo import main; main(['info', 'sresnet19_w16.t2_cifar10', '--json'])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(describe("sresnet19_w16.t2_cifar10")))


def test_processes_that_a_command_starts_find_our_modules(elsewhere, monkeypatch):
    code = "import importlib.util; print(importlib.util.find_spec('recipes').origin)"
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for variables, found in (({}, elsewhere), (same_modules(), ROOT)):
        command = [sys.executable, "-c", code]  # looks where `python -m` does
        env = os.environ | variables
        done = subprocess.run(command, cwd=elsewhere, env=env, check=True, capture_output=True, text=True)
        assert done.stdout == f"{found}/recipes/__init__.py\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WORLD_SIZE": "4"}, "snn-zoo train x"),  # of a batch system: the training asks for RANK, too
        ({"WORLD_SIZE": "1", "RANK": "0"}, "snn-zoo train x"),
        ({"WORLD_SIZE": "4", "RANK": "0"}, "torchrun --nproc-per-node 4 --no-python snn-zoo train x"),
        (
            {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            "torchrun --nnodes 2 --nproc-per-node 2 --no-python snn-zoo train x",
        ),
    ],
)
def test_a_recorded_command_can_be_typed_again(variables, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/snn-zoo", "train", "x"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert provenance.command() == expected
