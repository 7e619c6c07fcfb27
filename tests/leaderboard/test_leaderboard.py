"""The leaderboard: what the schema lets in, what a row is, and that the command line writes all or nothing."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import sys
from dataclasses import replace

import pytest
from conftest import accuracy, ancestor, latency, onnx, put, run_module, snapshot
from markdown_it import MarkdownIt

import leaderboard.__main__
from leaderboard.__main__ import main
from leaderboard.comparison import comparisons, comparisons_page
from leaderboard.row import Row
from leaderboard.rows import rows
from leaderboard.store import file_name, load_results
from leaderboard.tables import COLUMNS, checkpoints_text, chosen, csv_text, insert_table, markdown_text, summary
from zoo.errors import ZooError

README = "# Zoo\n\n<!-- leaderboard:start -->\nold\n<!-- leaderboard:end -->\n\nThe end.\n"


def seeds(*top1):
    return {f"{s}.json": accuracy(seed=s, top1=value, weights_sha256=f"{s:064x}") for s, value in enumerate(top1)}


@pytest.fixture
def board(tmp_path):
    """A folder with one result of each kind below results/, as `add` names them, and a README."""
    for result in (accuracy(), onnx()):
        name = file_name(result, json.dumps(result).encode())
        put(tmp_path / "results/cifar10/sresnet19.t2_cifar10" / name, result)
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def options(board):
    return ["--results", f"{board}/results", "--out", f"{board}/site", "--readme", f"{board}/README.md"]


# --- files to rows


def test_load_results_reads_what_lies_where_it_belongs(board):
    put(board / "results/none/sresnet19/o.json", onnx(dataset=None, tag=""))
    assert [re.sub("_.{8}.json", "", path) for path in load_results(board / "results")] == [
        "cifar10/sresnet19.t2_cifar10/accuracy_seed0_aaaaaaaa",
        "cifar10/sresnet19.t2_cifar10/onnx_seed0_aaaaaaaa",
        "none/sresnet19/o.json",
    ]


def test_load_results_refuses_a_file_in_the_wrong_folder(tmp_path):
    put(tmp_path / "cifar100/sresnet19.t2_cifar10/a.json", accuracy())
    with pytest.raises(ZooError, match=r"its content says 'cifar10/sresnet19\.t2_cifar10'"):
        load_results(tmp_path)


def test_row_is_mean_and_sample_deviation_over_seeds():
    results = seeds(90.0, 91.0, 92.5)
    for result, spikes, seconds in zip(results.values(), (1000.0, 1100.0, 1500.0), (60.0, 600.0, 90.0), strict=True):
        result |= {"spikes_per_image": spikes, "train_seconds": seconds}
    (row,) = rows(results)
    assert (row.runs, row.timesteps, row.params, row.epochs) == (3, 2, 12_600_000, 100)
    assert row.top1 == pytest.approx(273.5 / 3)
    # By hand: deviations -7/6, -1/6, 8/6 from the mean; squares sum to 114/36; divided by n - 1 = 2.
    assert row.top1_std == pytest.approx((114 / 72) ** 0.5)
    assert row.spikes_per_image == pytest.approx(1200.0)
    assert row.train_seconds == 90.0
    assert "| 91.17 ± 1.26 | 1,200 |" in summary([row])


def test_rows_are_sorted_and_validation_splits_are_not_ranked():
    said = [
        ("a", 80.0, {}),
        ("b", 95.0, {}),
        ("c", 99.0, {"dataset": "cifar100"}),
        ("d", 99.0, {"split": "validation"}),
    ]
    table = rows({model: accuracy(model=model, top1=top1, **more) for model, top1, more in said})
    assert [row.model for row in table] == ["b", "a", "c"]


def test_a_later_validation_is_the_same_run(capsys):
    trained = accuracy(scaling={"name": "count"})
    later = accuracy(top1=90.3, date="2026-02-01", train_images=None, epochs=None, seed=None, train_seconds=None)
    later["test_reads"] = None
    (row,) = rows({"t.json": trained, "v.json": later})
    assert (row.runs, row.top1, row.top1_std) == (1, 90.3, None)
    assert (row.epochs, row.train_seconds, row.test_reads, row.scaling) == (100, 600.0, 6, "count")
    assert [origin for origin, _ in row.evidence] == ["t.json", "v.json"]
    assert capsys.readouterr().err == ""

    (row,) = rows({"t.json": trained, "v.json": later | {"top1": 90.6}})
    assert row.top1 == 90.6
    assert re.search("warning: t.json and v.json .*90.0 and 90.6", capsys.readouterr().err)


def test_test_reads_are_at_least_the_runs_that_are_here():
    results = seeds(90.0, 91.0, 92.0)
    for result in results.values():
        result["test_reads"] = 1
    results["again.json"] = results["2.json"] | {"date": "2026-02-01"}  # the same weights: the same run
    results["twin.json"] = accuracy(model="sresnet19_gs", weights_sha256="b" * 64, test_reads=None)
    results["other.json"] = accuracy(model="svgg9", weights_sha256="c" * 64, test_reads=1, comparison="another")
    results["split.json"] = accuracy(weights_sha256="e" * 64, split="validation", test_reads=None)
    reads = {row.model: row.test_reads for row in rows(results)}
    assert reads == {"sresnet19": 4, "sresnet19_gs": 4, "svgg9": 1}


def test_test_reads_are_those_of_what_a_run_started_from_too():
    """The parent is one of six networks that were compared, and chosen among them; its own parent is of other data."""
    before = [ancestor(weights_sha256=letter * 64) for letter in "abf"]
    results = {
        "other.json": accuracy(model="svgg9", weights_sha256="b" * 64, dataset="cifar100", comparison="far"),
        "parent.json": accuracy(),  # states six reads of its comparison
        "parent, again.json": accuracy(date="2026-02-01", comparison="validated again", test_reads=None),
        "child.json": accuracy(tag="t2_more", weights_sha256="c" * 64, comparison="child", test_reads=1),
    }
    results["child.json"] |= {"recipe_sha256": "1" * 64, "recipe": {}, "started_from": before}
    reads = {row.name: row.test_reads for row in rows(results)}
    assert reads == {"sresnet19.t2_cifar10": 6, "sresnet19.t2_more": 7, "svgg9.t2_cifar10": 6}


def test_the_layer_that_fires_least():
    results = seeds(90.0, 91.0)
    assert rows(results)[0].least_firing_rate is None  # as results from before the key
    results["0.json"]["firing_rates"] = {"a": 0.5, "b": 0.001}
    results["1.json"]["firing_rates"] = {"a": 0.1, "b": 0.003}
    assert rows(results)[0].least_firing_rate == 0.002


def test_training_images_must_agree_also_with_a_later_validation():
    results = seeds(90.0, 91.0)
    results["0.json"]["train_images"] = 45_000
    results["9.json"] = results["0.json"] | {"train_images": None, "date": "2026-02-01"}
    with pytest.raises(ZooError, match=r"must agree in train_images: 50000 in 1\.json, 45000 in 9\.json"):
        rows(results)


def test_a_seed_trained_twice_counts_once(capsys):
    again = accuracy(weights_sha256="b" * 64, top1=92.0, date="2026-02-01")
    (row,) = rows({"new.json": again, "old.json": accuracy()})
    assert (row.runs, row.top1) == (1, 92.0)
    assert "warning: old.json is left out: new.json is a newer run of seed 0" in capsys.readouterr().err
    some = again | {"images": 100, "date": "2026-03-01"}  # of fewer images: looked at first, and no later training
    (row,) = rows({"new.json": again, "old.json": accuracy(), "some.json": some})
    assert (row.runs, row.top1) == (1, 92.0)


def test_runs_that_differ_cannot_share_a_row():
    changes = {"timesteps": 1, "params": 1, "train_images": 1, "epochs": 99, "images": 9, "scaling": {"name": "x"}}
    for key, value in changes.items():
        results = seeds(90.0, 91.0)
        results["0.json"]["scaling"] = {"name": "count"}
        results["1.json"][key] = value
        with pytest.raises(ZooError, match=rf"must agree in {key}: .* in 0\.json, .* in 1\.json"):
            rows(results)


def test_latency_joins_by_weights(capsys):
    results = {
        "a.json": accuracy(),
        "old.json": onnx(date="2026-01-01", latency=[latency(1, 1, 99.0)]),
        "new.json": onnx(),
        "int8.json": onnx(precision="int8", latency=[latency(1, 1, 4.5)], top1=89.5),
        "slow.json": onnx(date="2026-02-01", optimization="disable", latency=[latency(1, 1, 55.0)]),
        "gpu.json": onnx(date="2026-03-01", provider="CUDAExecutionProvider", latency=[latency(1, 1, 0.5)], top1=1.0),
    }
    (row,) = rows(results)
    assert (graph := row.graph())
    assert (graph.p50_ms, graph.bytes, graph.top1) == (12.5, 50_000_000, 89.75)
    assert len(row.evidence) == 6
    (line,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert (line["onnx_latency_ms"], line["onnx_top1"]) == ("12.5", "89.75")
    assert (line["int8_latency_ms"], line["int8_bytes"], line["int8_top1"]) == ("4.5", "50000000", "89.5")
    assert capsys.readouterr().err == ""


def test_a_graph_of_one_seed_has_no_accuracy_beside_the_mean_of_several():
    results = seeds(90.0, 91.0)
    graph = onnx(weights_sha256=results["1.json"]["weights_sha256"])
    (row,) = rows(results | {"graph.json": graph})
    assert row.graph().p50_ms == 12.5
    assert row.graph().top1 is row.graph().spikes_per_image is None


def test_the_processor_of_latencies_is_named():
    machine = onnx()["machine"]
    results = {
        "a.json": accuracy(machine=machine | {"cpu": "of the training"}),
        "fp32.json": onnx(machine=machine | {"cpu": "Intel(R) Xeon(R) Processor"}),
        "int8.json": onnx(precision="int8", machine=machine | {"cpu": "AMD EPYC"}),
    }
    timed = onnx(precision="int16", machine=machine | {"instruction_set": "AVX512 VNNI", "cpu": "AMD EPYC"})
    (row,) = rows({"a.json": accuracy(), "event.json": timed})
    (column,) = (column for column in COLUMNS if column.title == "Event p50 (ms)")
    assert (row.processor, column.show(row)) == ("AMD EPYC (AVX512 VNNI)", "12.50")
    (row,) = rows(results)
    assert row.processor == "Intel Xeon, AMD EPYC"
    (line,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert (line["onnx_cpu"], line["int8_cpu"]) == ("Intel Xeon", "AMD EPYC")
    (row,) = rows({"a.json": accuracy(), "fp32.json": onnx(latency=[])})
    assert row.processor is None


def test_a_published_number_stays_in_its_own_columns():
    reference = {"top1": 94.44, "spikes_per_image": None, "citation": "=1+1"}
    (row,) = rows({"a.json": accuracy(reference=reference), "b.json": accuracy(seed=1, weights_sha256="b" * 64)})
    assert (row.top1, row.published_top1, row.published_spikes_per_image) == (90.0, 94.44, None)
    (line,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert (line["top1"], line["published_top1"], line["published_citation"]) == ("90", "94.44", "'=1+1")  # no formula


# --- rendering


def test_the_list_of_checkpoints_says_what_they_reach_on_the_data_of_their_training():
    row = Row("cifar10", "max_resnet18_gs", "t4_cifar10", "measured", top1=94.0, recipe={"dataset": "cifar10"})
    told = json.loads(checkpoints_text([replace(row, dataset="brightness", top1=12.5), row]))
    assert told["max_resnet18_gs.t4_cifar10"]["top1"] == 94


def test_the_readme_has_the_best_of_each_size_and_data_set():
    results = {
        f"{data}{size}{top1}.json": accuracy(
            model=f"net{size}_{top1}", dataset=data, params=size, top1=float(top1), weights_sha256="b" * 64
        )
        for data in ("a", "b", "c", "d")
        for size in (499_999, 500_000, 2_000_000, 10_000_000)
        for top1 in (70, 80)
    } | {"more.json": accuracy(model="more", dataset="d", params=1, top1=1.0)}
    table = rows(results)
    found = [(row.dataset, row.params, row.top1) for row in chosen(table)]
    assert len(found) == 12
    assert {dataset for dataset, _, _ in found} == {"a", "b", "d"}  # d has more rows than c
    assert {top1 for _, _, top1 in found} == {80.0}
    assert len({size for dataset, size, _ in found if dataset == "a"}) == 4
    assert summary(table).count("\n| ") == 13  # and the line below the titles
    assert summary(table).endswith("(below 0.5, 2, 10 million parameters, and above), at most 12 rows: 12 of 33.\n")
    assert csv_text(table).count("\n") == 34


def test_insert_table_wants_both_markers_once_in_order():
    for text in ("", README.replace("start", "begin"), README * 2, "\n".join(README.split("\n")[::-1])):
        with pytest.raises(ZooError, match="leaderboard:start"):
            insert_table(text, "")


# --- command line


def test_render_then_check(board, capsys):
    def stale():
        with pytest.raises(SystemExit) as stop:
            main(["check", *options(board)])
        assert stop.value.code == 1
        return capsys.readouterr().err

    before = snapshot(board)
    assert re.search("leaderboard.csv, .*README.md, .*accuracy_spikes.svg", stale())
    assert snapshot(board) == before

    main(["render", *options(board)])
    assert f"1 row from 2 result files: {board}/site/leaderboard.csv" in capsys.readouterr().out
    (head, tail), text = README.split("old"), (board / "README.md").read_text()
    assert re.fullmatch(rf"{head}\n\| Dataset .*sresnet19\.t2_cifar10.*{tail}", text, re.DOTALL)
    main(["check", *options(board)])
    (board / "site/leaderboard.csv").write_text("edited by hand")
    assert re.search("stale: [^,]*leaderboard.csv;", stale())


def test_without_its_libraries_the_picture_stays_as_it_is(board, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "leaderboard.charts", None)
    main(["render", *options(board)])
    assert "warning: accuracy_spikes.svg is not drawn" in capsys.readouterr().err
    assert [path.name for path in (board / "site").iterdir() if path.suffix == ".svg"] == []


def test_bad_input_changes_nothing(board, monkeypatch):
    put(board / "other.json", {})
    (board / "broken").mkdir()
    (board / "broken/b.json").write_text('{"kind": ')
    before = snapshot(board)
    for option, name, problem in (
        ("--readme", "other.json", "leaderboard:start"),
        ("--readme", "absent.md", "no such file"),
        ("--results", "absent", "no such folder"),
        ("--results", "broken", r"cannot read \S*b\.json as JSON: "),
    ):
        with pytest.raises(ZooError, match=problem):
            main(["render", *options(board), option, f"{board}/{name}"])
    monkeypatch.setattr(leaderboard.__main__, "_STORE", board / "absent")  # as in an installation
    for given, missing in (("--out", "--results"), ("--results", "--out")):
        with pytest.raises(ZooError, match=f"give {missing}$"):
            main(["render", given, str(board), "--readme", "none"])
    assert snapshot(board) == before


def test_the_committed_leaderboard_is_current():
    done = run_module("leaderboard", "check")
    assert (done.returncode, done.stderr) == (0, "")


def test_networks_of_one_comparison_stand_side_by_side():
    """Of one data set, with what their recipes share and where one differs; a network alone is no comparison."""
    recipe = {"epochs": 12, "lr": 0.02, "dataset": "cifar10"}
    results = {
        f"{model}.json": accuracy(
            model=model, top1=top1, comparison=name, dataset=dataset, weights_sha256=f"{i:064x}",
            recipe_sha256="e" * 64, recipe=recipe | {"model": model} | changes, started_from=[],
        )
        for i, (model, top1, name, dataset, changes) in enumerate([
            ("svgg11", 80.0, "alike", "cifar10", {}),
            ("plif_net", 85.0, "alike", "cifar10", {"phases": [{"epochs": 4, "timesteps": 1}]}),
            ("sresnet19", 82.0, "alike", "cifar10", {"out": "elsewhere"}),
            ("ms_resnet19", 79.0, "alike", "cifar10", {}),
            ("qkformer", 78.0, "alike", "cifar10", {"phases": [{"epochs": 4, "timesteps": 1}]}),
            ("sdt", 99.0, "alike", "cifar100", {}),
            ("spikformer", 99.0, "alone<b>|", "cifar10", {}),
        ])
    }  # fmt: skip
    table = rows(results)
    (one,) = comparisons(table)
    assert [row.model for row in one.rows] == ["plif_net", "sresnet19", "svgg11", "ms_resnet19", "qkformer"]
    assert one.recipe == {"timesteps": 4, "epochs": 12, "lr": 0.02}
    assert one.exceptions == ['plif_net, qkformer have phases: [{"epochs": 4, "timesteps": 1}]']
    page = comparisons_page(table)
    assert page.count("## ") == 1
    assert re.search(r"\| plif_net \| 85\.00 \|.*\n\| sresnet19 \| 82\.00 \|", page)
    assert "    timesteps: 4\n    epochs: 12\n    lr: 0.02\n\nBut plif_net, qkformer have phases" in page
    assert len(comparisons(one.rows[:2])) == 1
    assert comparisons_page([row for row in table if row.model == "svgg11"]) == ""
    evil = [replace(row, comparison="<b>\n# x", model=f"<i>{row.model}\n") for row in one.rows]
    assert "<b>" not in comparisons_page(evil)
    assert "<i>" not in comparisons_page(evil)
    assert "\n# x" not in comparisons_page(evil)


def test_texts_of_files_are_texts_in_markdown():
    """No link, picture, emphasis, code or cell of a table comes of what a result says."""
    evil = "![x](https://evil.example/p.png) [y](javascript:z) `c` **b** | <i> sresnet19_w16 https://evil.example"
    evil += " a._b_ _c_ ~~d~~ www.evil.example e@evil.example"
    assert "sresnet19_w16" in markdown_text(evil)
    assert not re.search(r"www\.|@|://", markdown_text(evil))  # which GitHub makes links of
    shown = MarkdownIt().enable(["table", "strikethrough"]).render(f"| a |\n| --- |\n| {markdown_text(evil)} |\n")
    assert html.unescape(re.search("<td>(.*)</td>", shown)[1]) == evil
