"""What the store takes and refuses, that two writers do it no harm, and that no number changes without a trace."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT, accuracy, ancestor, latency, onnx, put, snapshot

from leaderboard.__main__ import main
from leaderboard.rows import rows
from leaderboard.store import load_results
from recipes.lineage import ancestors_of, known_runs, read_run, recipe_sha256_of
from zoo.errors import ZooError
from zoo.names import dataset_name, pretrained_names

COUNTS = {
    "Effective_ACs": 1e6, "Effective_MACs": 2e6, "Dense": 9e6, "energy_uj": 0.9 * 1 + 4.6 * 2,
    "products": {"Effective_ACs": 0.0, "Effective_MACs": 0.0, "Dense": 0.0},
}  # fmt: skip
ONE_MORE = {"seed": 1, "weights_sha256": "b" * 64}


def whole(*, inside=None, **changes):
    """A measurement as `measure` writes it, with changes to it and to its first part."""
    parts = [accuracy(**COUNTS) | (inside or {}), onnx(precision="fp32", layout="flat")]
    common = {key: parts[0][key] for key in ("schema", "model", "tag", "dataset", "weights_sha256", "images")}
    common |= {key: parts[0][key] for key in ("command", "commit", "date", "versions", "machine")}
    recipe = {"recipe": None, "recipe_sha256": None, "started_from": []}
    rest = {"kind": "measurement", "partial": False, "spikes_differ": {"fp32 flat": 0}, "plugins": None}
    return common | recipe | rest | {"parts": parts} | changes


@pytest.fixture
def add(tmp_path):
    """Adds results to a board in a folder of its own, and gives all that it then holds."""

    def run(*results):
        files = [str(put(tmp_path / f"{place}.json", result)) for place, result in enumerate(results)]
        main(["add", *files, *options(tmp_path)])
        main(["check", *options(tmp_path)])
        return load_results(tmp_path / "results")

    return run


def options(folder):
    return ["--results", f"{folder}/results", "--out", f"{folder}/site", "--readme", "none"]


# --- add


def test_add_puts_a_file_where_it_belongs_once(add, tmp_path, capsys):
    add(accuracy())
    found = add(accuracy(**ONE_MORE, top1=92.0), accuracy())
    assert sorted(path.rpartition("_")[0] for path in found) == [
        "cifar10/sresnet19.t2_cifar10/accuracy_seed0_aaaaaaaa",
        "cifar10/sresnet19.t2_cifar10/accuracy_seed1_bbbbbbbb",
    ]
    assert rows(found)[0].top1 == 91.0
    assert capsys.readouterr().out.count("added") == 2
    before = snapshot(tmp_path)
    add(accuracy(**ONE_MORE, top1=92.0), accuracy())
    assert snapshot(tmp_path) == before
    assert "added" not in capsys.readouterr().out


def without(result, key):
    return {name: value for name, value in result.items() if name != key}


OTHER = {"model": "other", "weights_sha256": "c" * 64}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A store with one result, and what is rendered from it: not to be changed."""
    folder = tmp_path_factory.mktemp("board")
    main(["add", str(put(folder / "one.json", accuracy())), *options(folder)])
    return folder


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (accuracy(commit=None), "without evidence: commit is None"),
        (whole(inside={"commit": None}), "without evidence: commit is None"),
        (accuracy(**OTHER, data_sha256=None), "without evidence: data_sha256 is None"),
        (accuracy(partial=True), "10000 images are a part of the test set"),
        (whole(partial=True), "10000 images are a part of the test set"),
        (accuracy(machine=accuracy()["machine"] | {"cpu": 5}), r"machine.cpu: .* not 5"),
        (whole(parts=[accuracy(**COUNTS), without(onnx(), "precision")]), r"parts.1.onnx.precision is missing"),
        (whole(parts=[accuracy(), accuracy()]), "two parts are of the same form: PyTorch, PyTorch"),
        (whole(inside={"timesteps": 1, "spikes_per_step": None}), "timesteps of part 2 is 2, not that of part 1"),
        (whole(weights_sha256="f" * 64), "weights_sha256 of part 1 is 'aaa.* not that of the whole"),
        (accuracy(**OTHER, data_sha256="e" * 64), "results of cifar10 must agree in data_sha256: 'ddd.* 'eee"),
        (accuracy(**ONE_MORE, params=1), "must agree in params"),
        (accuracy(timesteps=6, spikes_per_step=None), "must agree in timesteps: 2 in .*, 6 in "),  # of the same weights
        (accuracy(**ONE_MORE, recipe_sha256="c" * 64), "must agree in recipe_sha256"),
        (accuracy(weights_sha256="b" * 64, recipe_sha256="c" * 64), "must agree in recipe_sha256"),
    ],
)
def test_add_refuses_with_the_reason(board, tmp_path, result, reason):
    """And a good file before the bad one is not added either."""
    good = put(tmp_path / "good.json", accuracy(model="good", weights_sha256="d" * 64))
    bad = put(tmp_path / "bad.json", result)
    before = snapshot(board)
    assert len(before) > 1
    with pytest.raises(ZooError, match=rf"^.*{reason}"):
        main(["add", str(good), str(bad), *options(board)])
    assert snapshot(board) == before


def test_results_on_held_out_images_stand_beside_those_on_the_test_set(add):
    held_out = [accuracy(split="validation", images=images) for images in (5000, 1000)]
    assert len(rows(add(held_out[0]))) == 0
    (row,) = rows(add(held_out[1], accuracy()))
    assert row.images == 10_000


def test_a_row_says_what_a_training_went_on_with(add):
    later = {"commit": "1" * 40 + "-dirty", "versions": {}, "machine": accuracy()["machine"]}
    (row,) = rows(add(accuracy(resumed_with=[later])))
    assert (row.commits, row.dirty) == (("0" * 40, later["commit"]), True)


# --- identity


def test_bundled_rows_count_all_that_they_started_from():
    board = {row.path: row for row in rows(load_results(ROOT / "leaderboard" / "results"))}
    for run in known_runs().values():
        if run.name not in pretrained_names():
            continue  # a stage on the way to one
        row = board[f"{dataset_name(run.config['recipe']['dataset'])}/{run.name}"]
        assert row.recipe_sha256 == recipe_sha256_of(run.config)
        assert row.tier == "measured"
    second = board["cifar10/sresnet19_w32_gs.t4_cifar10"]
    assert [(ancestor.name, ancestor.epochs) for ancestor in second.started_from] == [
        ("sresnet19_w32_gs.t2_cifar10", 38)
    ]
    assert second.epochs == 24 + 38
    assert second.train_seconds == pytest.approx(6908.9 + 7872.9)
    assert second.test_reads == 2
    # Of the flagship's three ends one is on the board; the small network was chosen among ten, and has two ends more.
    assert board["cifar10/sresnet19_gs.t4_cifar10"].test_reads == 3
    assert board["cifar10/max_resnet18_w32_gs.t4_cifar10"].test_reads == 12
    assert board["cifar100/sresnet19_gs.t4_cifar100"].test_reads == 1
    assert second.dirty
    assert not board["cifar10/sresnet19_w32_gs.t2_cifar10"].dirty


def test_a_stage_that_left_the_test_set_alone_took_what_its_log_says(tmp_path):
    flagship = next(run for run in known_runs().values() if run.name == "sresnet19_gs.t4_cifar10_cycle1")
    assert [ancestor.train_seconds for ancestor in ancestors_of(flagship.config)] == [4437.4, 9576.1]

    (tmp_path / "config.json").write_text(json.dumps(flagship.config))
    assert read_run(tmp_path).train_seconds is None
    for log, seconds in (("", None), ("epoch,seconds\n1,many\n", None), ("epoch,seconds\n1,2.5\n2,7.5\n", 7.5)):
        (tmp_path / "summary.csv").write_text(log)
        assert read_run(tmp_path).train_seconds == seconds
    (tmp_path / "summary.csv").write_bytes(b"epoch,seconds\n1,\xff\n")
    assert read_run(tmp_path).train_seconds is None
    (tmp_path / "result.json").write_text(json.dumps({"weights_sha256": "0" * 64, "train_seconds": 3}))
    assert read_run(tmp_path).train_seconds is None


def test_a_recipe_is_what_it_computes():
    run = next(run for run in known_runs().values() if run.name == "sresnet19_w32_gs.t4_cifar10")
    config, first = run.config, recipe_sha256_of(run.config)

    def changed(**keys):
        return recipe_sha256_of(config | {"recipe": config["recipe"] | keys})

    assert changed(seed=7, out="elsewhere", device="cuda", tag="mine", comparison="x", test_reads=9) == first
    assert changed(img_size=None) == first  # a key that is younger, at its default
    for keys in ({"epochs": 25}, {"lr": 0.1}, {"model": "sresnet19_w32"}, {"loss": "ce"}):
        assert changed(**keys) != first
    scratch = {key: value for key, value in config.items() if key != "started_from"}
    assert recipe_sha256_of(scratch | {"recipe": config["recipe"] | {"init": None}}) != first
    # What it started from stands for itself by its recipe: another seed of that is the same chain.
    ancestor = ancestors_of(config)[0]
    chain = [ancestor.model_copy(update={"weights_sha256": "f" * 64}).model_dump()]
    assert recipe_sha256_of(config | {"started_from": chain}) == first
    assert recipe_sha256_of(config | {"started_from": [chain[0] | {"recipe_sha256": "f" * 64}]}) != first
    plugged = [recipe_sha256_of(config | {"plugins": [{"file": "a.py", "sha256": digit * 64}]}) for digit in "ab"]
    assert len({first, *plugged}) == 3


def test_costs_of_a_row_are_means_over_its_seeds():
    results = {}
    for seed, epochs in enumerate((5, 7)):
        before = ancestor(epochs=epochs, train_seconds=50.0)
        results[f"{seed}.json"] = accuracy(
            seed=seed, weights_sha256=f"{seed:064x}", recipe_sha256="c" * 64, started_from=[before],
            activation_sparsity=0.5 + seed / 4, membrane_updates=1000.0 + 100 * seed, energy_uj=10.0 + seed,
            Effective_ACs=1e6 * (1 + seed), Effective_MACs=2e6 * (1 + seed), Dense=9e6 * (1 + seed),
        )  # fmt: skip
    (row,) = rows(results)
    assert (row.runs, row.epochs) == (2, 107)  # the longest chain
    assert (row.activation_sparsity, row.membrane_updates, row.energy_uj) == (0.625, 1050.0, 10.5)
    assert (row.effective_acs, row.effective_macs, row.dense) == (1.5e6, 3e6, 13.5e6)


# --- graphs


def test_accuracy_on_images_of_no_name_is_not_that_of_a_row():
    (row,) = rows({"a": accuracy(), "o": onnx(dataset=None, split=None, top1=12.34)})
    assert [(graph.top1, graph.p50_ms) for graph in row.graphs] == [(None, 12.5)]


def test_a_part_of_a_test_set_is_never_beside_a_whole():
    results = {
        "a": accuracy(),
        "old": onnx(),
        "new": onnx(images=500, top1=99.0, date="2027-01-01", latency=[latency(1, 1, 1.0)]),
        "int8": onnx(images=500, top1=98.0, precision="int8", layout="flat", latency=[latency(1, 1, 2.0)]),
        "few": accuracy(model="few", images=500, top1=99.0, weights_sha256="b" * 64),
    }
    (row,) = rows(results)  # without the one over 500 images
    assert [(graph.precision, graph.top1, graph.p50_ms) for graph in row.graphs] == [
        ("fp32", 89.75, 12.5),
        ("int8", None, 2.0),
    ]
