"""From a training to a row: the walk through leaderboard/README.md as it stands, and what `measure` and `verify` do."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, accuracy

import zoo
from leaderboard.__main__ import main
from leaderboard.measure import measure
from leaderboard.row import Graph, Row
from leaderboard.rows import rows
from leaderboard.store import load_results
from leaderboard.verify import Line, _of_checkpoint, compare, other_files
from zoo.errors import ZooError
from zoo.result import read

NAME = "svgg9_w16.mine"
BOARD = ["--results", "results", "--out", "board", "--readme", "none"]


def typed(line):
    """Run a command line as a shell would, in this process."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    module = importlib.import_module(words[2])
    module = importlib.import_module(f"{words[2]}.__main__") if hasattr(module, "__path__") else module
    arguments = [
        name for word in words[3:] for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    sys.argv = [module.__file__ or "", *arguments]
    module.main(arguments)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the README's commands ran."""
    text = (ROOT / "leaderboard" / "README.md").read_text()
    (block,) = re.findall(r"<!-- walk:start -->\n```bash\n(.*?)```\n<!-- walk:end -->", text, flags=re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("walk"))
        patch.setattr(sys, "argv", sys.argv)
        for line in block.splitlines():
            typed(line)
        yield Path.cwd()


def test_a_training_becomes_a_row(walked):
    (row,) = rows(load_results(walked / "results"))
    trained = json.loads((walked / "run" / "result.json").read_text())
    assert (row.path, row.tier, row.runs, row.epochs) == (f"digits/{NAME}", "checkpoint", 1, 1)
    assert (row.top1, row.recipe_sha256) == (trained["top1"], trained["recipe_sha256"])
    assert row.recipe
    assert row.recipe["train_images"] == 320
    assert row.train_seconds == trained["train_seconds"]
    assert row.effective_acs == trained["Effective_ACs"]
    assert len(row.evidence) == 3
    assert all(result["command"] and result["commit"] for _, result in row.evidence)
    (graph,) = row.graphs
    assert (graph.precision, graph.top1) == ("fp32", row.top1)
    assert graph.p50_ms
    assert graph.spikes_per_image == pytest.approx(row.spikes_per_image, rel=1e-3)


def test_verify_finds_a_number_that_nobody_measured(walked, capsys):
    """An edited record passes `add`: only measuring again shows it."""
    (file,) = walked.glob("measured/digits/*.json")
    record = read(file)
    record["parts"][0]["top1"] += 100 * 4 / 360
    forged = walked / "forged.json"
    forged.write_text(json.dumps(record))
    main(["add", str(forged), "--results", "other", *BOARD[2:]])
    with pytest.raises(SystemExit) as stop:
        main(["verify", NAME, "--checkpoint", "run", "--results", "other", "--runs", "1"])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert "not as on the board: top1" in captured.err
    assert re.search(r"top1 .* 1\.11111 .* MISS", captured.out.replace("-1.11", "1.11"))
    assert "effective_acs" in captured.out


def test_the_same_weights_with_other_time_steps_are_another_row():
    results = {"two.json": accuracy(timesteps=2, top1=90.0), "eight.json": accuracy(timesteps=8, tag="t8", top1=92.0)}
    for row in rows(results):
        assert _of_checkpoint(results, row, row.name, results["two.json"]["weights_sha256"]) == row


def test_a_part_of_a_test_set_and_a_graph_alone(walked, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure"])
    main(["measure", "run", "--precision", "--limit", "20", "--out", "part"])
    (file,) = walked.glob("part/digits/*.json")
    record = read(file)
    assert (record["partial"], record["images"], len(record["parts"])) == (True, 20, 1)
    with pytest.raises(ZooError, match="20 images are a part of the test set"):
        main(["add", str(file), *BOARD])

    from export.to_onnx import to_onnx
    from zoo import load

    to_onnx(load(walked / "run"), walked / "graph.onnx", verify=False)
    with pytest.raises(ZooError, match="does not tell what it was trained on: name a data set with --dataset"):
        main(["measure", "graph.onnx"])
    main(["measure", "graph.onnx", "--dataset", "digits", "--runs", "1", "--out", "graph"])
    (file,) = walked.glob("graph/digits/*.json")
    (part,) = read(file)["parts"]
    assert (part["kind"], part["images"], len(part["latency"])) == ("onnx", 360, 1)
    assert file.name.endswith("_fp32.json")  # beside the record of its run, not in its place


def test_a_limit_that_leaves_no_image_out_is_no_part(monkeypatch):
    monkeypatch.setattr("leaderboard.measure.validate", lambda *_, **__: accuracy(dataset="digits"))
    for limit, partial in ((None, False), (359, True), (360, False), (10_000, False)):
        record = measure("sresnet19_w16.t2_cifar10", "digits", precisions=(), limit=limit)
        assert record["partial"] is partial


def test_the_parts_of_a_record_are_of_the_code_that_it_began_with(monkeypatch):
    part = accuracy(dataset="digits", commit="a" * 40)  # committed while it ran
    monkeypatch.setattr("leaderboard.measure.validate", lambda *_, **__: part)
    monkeypatch.setattr("leaderboard.measure.provenance", lambda **_: {"commit": "b" * 40 + "-dirty"})
    (found,) = measure("sresnet19_w16.t2_cifar10", "digits", precisions=())["parts"]
    assert found == part | {"commit": "b" * 40 + "-dirty"}


def test_what_cannot_be_measured_is_said_before_the_test_set_is_gone_through(walked, monkeypatch):
    monkeypatch.setattr("leaderboard.measure.measure", None)
    verify = f"verify {NAME} --results results --checkpoint"
    for words, said in {
        "measure": "nothing to measure",
        "measure --precision fp32 run": "unknown precision 'run'",
        "measure run --limit 0": "argument --limit: must be 1 or more",
        "measure run --precision bogus": r"unknown precision 'bogus' \(known: fp32, fp16, int8",
        "measure run --precision fp32 fp32": "a record has one graph of each precision, not of fp32 fp32",
        "measure run --runs 0": "timing runs: .* not 0",
        "measure run --out run/result.json": "cannot write",
        "verify svgg9 --results results": r"unknown row 'svgg9'.*known: digits/svgg9_w16\.mine",
        f"{verify} x.onnx": r"from its weights, and x\.onnx is a graph",
        f"{verify} sresnet19_w16.t2_cifar10": r"this is sresnet19_w16\.t2_cifar10 .* not in digits/svgg9_w16\.mine",
    }.items():
        with pytest.raises(ZooError, match=said):
            main(words.split())


def test_what_has_no_graph_is_said_before_the_test_set_is_gone_through(tmp_path, monkeypatch):
    model = zoo.create_model("svgg11_w8", timesteps=1, encoding="rate")
    zoo.save_checkpoint(
        tmp_path / "run", model, tag="x", data_cfg={"num_classes": 10, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    )
    how = ["measure", str(tmp_path / "run"), "--dataset", "digits", "--limit", "8", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr("leaderboard.measure.validate", None)
        with pytest.raises(ZooError, match=r"rate encoding take a frame .*--precision without a value"):
            main(how)
    main([*how, "--precision"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["recipe"] = {"dataset": "folder:gone"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZooError, match=r"trained on folder:gone, which is not here: --dataset folder:DIR says where"):
        main(["measure", str(tmp_path / "run")])
    (file,) = (tmp_path / "out").rglob("*.json")
    assert [part["kind"] for part in json.loads(file.read_text())["parts"]] == ["accuracy"]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("top1", 93.04, 92.94, 0.1), "ok"),
        (Line("top1", 93.04, 92.93, 0.1), "MISS"),
        (Line("p50_ms", 2.0, 3.0, None), "x 1.50"),
        (Line("dense", None, 3.0, 0.1), "not compared"),
        (Line("dense", 3.0, None, 0.1), "MISS"),
        (Line("p50_ms", 3.0, None, None), "not compared"),
    ],
)
def test_verdicts(line, verdict):
    assert line.verdict == verdict


@pytest.mark.parametrize(("times", "verdict"), [(1.011, "MISS"), (0.989, "MISS"), (1.0005, "ok")])
def test_every_number_is_compared_with_its_own_size(times, verdict):
    shares = {"spikes_per_image": 1e5, "effective_acs": 2e7, "effective_macs": 2e6, "dense": 3e8, "energy_uj": 0.02}
    shares |= {"membrane_updates": 4e5, "footprint_bytes": 5e6, "timesteps": 4, "params": 7e5, "epochs": 30}
    shares |= {"activation_sparsity": 0.9, "connection_sparsity": 0.1}
    row = Row("cifar10", "mine", "", "measured", top1=90.0, **shares)
    graph = graph_of("int8")
    again = replace(graph, top1=90.0 * times, spikes_per_image=1e5 * times)
    now = replace(row, top1=90.0 * times, **{key: value * times for key, value in shares.items()}, graphs=(again,))
    verdicts = {line.number: line.verdict for line in compare(replace(row, graphs=(graph,)), now)}
    assert verdicts.pop("int8 flat p50_ms") == "not compared"
    assert verdicts == dict.fromkeys(["top1", *shares, "int8 flat top1", "int8 flat spikes_per_image"], verdict)


def graph_of(precision):
    return Graph(precision, "flat", 90.0, 1e5, 10**6, None, None, "a" * 64)


def test_each_precision_has_a_tolerance_of_its_own():
    for precision, points in {"fp32": 0.1, "int16": 0.15, "int8": 0.5}.items():
        row = Row("cifar10", "mine", "", "measured", top1=90.0, graphs=(graph_of(precision),))
        for off, verdict in ((0.01, "MISS"), (-0.01, "ok")):
            now = replace(row, graphs=(replace(row.graphs[0], top1=90.0 + points + off),))
            verdicts = {line.number: line.verdict for line in compare(row, now)}
            assert verdicts[f"{precision} flat top1"] == verdict


def test_another_file_than_the_rows_is_named():
    row = Row("cifar10", "mine", "", "measured", top1=90.0, graphs=(graph_of("fp32"), graph_of("int8")))
    assert other_files(row, row) == []
    now = replace(row, graphs=(row.graphs[0], replace(row.graphs[1], sha256="b" * 64, bytes=5)))
    (said,) = other_files(row, now)
    assert said.startswith(
        "int8 flat: another file than the row's (sha256 bbbbbbbbbbbb..., not aaaaaaaaaaaa...; 5 bytes"
    )
    assert other_files(row, replace(row, graphs=())) == []


def test_what_was_measured_before_is_left_out(walked, capsys):
    how = ["measure", "run", "--precision", "fp32", "--resume", "--runs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leaderboard.measure.measure", None)
        main(how)
        assert "measured before: measured/digits/svgg9_w16.mine_" in capsys.readouterr().err
        with pytest.raises(TypeError):  # another form is another record
            main(["measure", "run", "--precision", "--resume"])
        with pytest.raises(TypeError):
            main([*how, "--out", "elsewhere"])
        with pytest.raises(TypeError):  # and so is another data set
            main([*how, "--dataset", "i2e:digits"])
