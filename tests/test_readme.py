"""README.md: its words, its numbers, and that each of its commands is one."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from recipes.commands import parse_train
from recipes.start import pick
from snn_zoo import COMMANDS, main
from zoo.names import measured

TEXT = (ROOT / "README.md").read_text()
LINES = [
    line.removeprefix("$ ").partition("  #")[0].strip()
    for block in re.findall("```(?:console|bash)\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith(("$ ", "bash ", "pip "))
]


def test_it_is_short():
    assert len(TEXT.split()) <= 1300


@pytest.mark.parametrize("line", LINES)
def test_each_command_is_read_as_it_stands(line, tmp_path, monkeypatch):
    """With a folder flowers/ and files that earlier lines make; nothing is run."""
    monkeypatch.chdir(tmp_path)
    for label in ("rose", "tulip"):
        (tmp_path / "flowers" / label).mkdir(parents=True)
    (tmp_path / "model.onnx").touch()
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setenv("SNNZOO_DATA", str(tmp_path))
    program, *words = [word for word in shlex.split(line) if not re.match("[A-Z]+=", word)]
    if program == "snn-zoo":
        command = COMMANDS[words[0]]
        module, _, function = command.parse.partition(":")
        getattr(importlib.import_module(module), function)([*command.words, *words[1:]])
    elif program == "bash":
        script, *words = words
        assert (ROOT / script).is_file()
        if dataset := re.search(r"cifar\d+", script):
            model = words[1] if words else "sresnet19_gs"
            parse_train([pick(model, dataset[0])[0], *words[2:], "--download", "true"])
    else:
        assert line == "pip install -e ."


def test_python_and_predict_give_what_it_says(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall("```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    told = []
    for statement in re.split(r"\n(?=\S)", code.strip()):
        value, _, said = statement.partition("  # ")
        if "=" in value or value.startswith(("import", "from", "with")):
            exec(statement, names)
        else:
            told.append((eval(value, names), eval(said.partition(";")[0])))
    assert len(told) == 2
    for found, said in told:
        assert found == (said if isinstance(said, str) else pytest.approx(said, rel=1e-3))  # a processor rounds
    command, *lines = re.search(r"\$ snn-zoo (predict.*?)```", TEXT, re.DOTALL)[1].splitlines()
    main(command.split())
    for line, found in zip(lines, capsys.readouterr().out.splitlines(), strict=True):
        assert found.split()[1:] == line.split()[1:]
        assert (
            float(found.split()[0]) == pytest.approx(float(line.split()[0]), abs=0.5) if "%" in line else found == line
        )


def test_what_to_take_is_what_was_measured():
    rows = {name: row for name, row in measured().items() if row["dataset"] == "cifar10"}
    accurate = sorted(rows, key=lambda name: -rows[name]["top1"])
    board = csv.DictReader((ROOT / "leaderboard/leaderboard.csv").open())
    reads = {f"{row['model']}.{row['tag']}": row["test_reads"] for row in board}
    times = json.loads((ROOT / "export/reports/event_time.json").read_text())["networks"]  # of one run
    fast = sorted(rows.keys() & times, key=lambda name: times[name]["int16_ms"])
    few = min(rows, key=lambda name: rows[name]["spikes_per_image"])
    assert fast[0] == few
    chosen = [
        accurate[0],
        next(name for name in accurate if rows[name]["params"] < 1e6 and reads[name] == "1"),
        next(name for name in fast if rows[name]["top1"] > 90),
        few,
    ]
    for name, line in zip(chosen, re.findall(r"^\| the .*$", TEXT, re.MULTILINE), strict=True):
        row = rows[name]
        numbers = f"{row['top1']:.2f} | {row['spikes_per_image']:,.0f} | {row['params'] / 1e6:.2f}"
        ms = f"{times[name]['fp32_ms']:.2f} | {times[name]['int16_ms']:.2f}"
        assert line.endswith(f"| `{name}` | {numbers} | {ms} |")


def test_every_family_and_its_best_checkpoint():
    lines = re.findall(r"^\| \[(\w+)\]\((zoo/models/\w+\.py)\) .*\| (\S+) \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    assert len(lines) == 10
    rows = {name: row["top1"] for name, row in measured().items() if row["dataset"] == "cifar10"}
    for family, file, best, top1 in lines:
        assert Path(ROOT, file).is_file()
        own = {name: value for name, value in rows.items() if re.match(rf"{family}[\d_]", name)}
        assert (best, top1) == (max(own, key=lambda name: own[name]), f"{max(own.values()):.2f}")
