"""What a result may hold, and one line for what it may not; where a number comes from, without where files are kept."""

import subprocess
from typing import Any

import pytest
import torch
from conftest import accuracy, latency, onnx

from zoo import provenance
from zoo.errors import ZooError
from zoo.provenance import without_folders
from zoo.result import Accuracy, Arm, Onnx, Training, check
from zoo.schema import Model


@pytest.mark.parametrize(
    "result",
    [
        accuracy(),
        onnx(),
        accuracy(tag="", scaling={"name": "count", "power": 0.5}, seed=None, commit=None, note="warm-up run"),
        accuracy(spikes_per_image=None, spikes_per_layer=None, spikes_per_step=None, test_reads=None),
        accuracy(reference={"top1": 94.4, "spikes_per_image": None, "citation": "A. Author, 2022"}),
        onnx(dataset=None, split=None, images=None, top1=None, latency=[], epochs=None, seed=None, test_reads=None),
        onnx(precision="int8", layout="flat", profile=[{"operator": "Conv", "nodes": 2, "ms": 0.5, "share": 1.0}]),
        onnx(latency=[latency(1, 1, 5.0) | {"p90_ms": 5.5, "p99_ms": 7.0, "ms": [5.0], "peak_bytes": None}]),
    ],
)
def test_good_results_are_taken(result: dict[str, Any]) -> None:
    check(result, "r.json")


@pytest.mark.parametrize(("kind", "full"), [(Accuracy, accuracy()), (Onnx, onnx())])
def test_every_required_key_is_missed(kind: type[Model], full: dict[str, Any]) -> None:
    required = {field.alias or name for name, field in kind.model_fields.items() if field.is_required()}
    assert full.keys() == required
    for key in required - {"kind"}:
        with pytest.raises(ZooError, match=rf"r\.json: {key} is missing"):
            check({k: v for k, v in full.items() if k != key}, "r.json")


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (accuracy, "schema", True),
        (accuracy, "kind", "acuracy"),
        (accuracy, "model", "../../etc"),
        (accuracy, "tag", "a/b"),
        (accuracy, "images", 10000.0),
        (accuracy, "top1", 100.1),
        (accuracy, "top1", NAN),
        (accuracy, "spikes_per_image", 10**400),
        (accuracy, "spikes_per_layer", {"lif": None}),
        (accuracy, "spikes_per_step", [1.0]),
        (accuracy, "firing_rates", {"lif": 2.0}),
        (accuracy, "scaling", {"power": 0.5}),
        (accuracy, "comparison", " "),
        (accuracy, "weights_sha256", "a" * 64 + "\n"),
        (accuracy, "date", "yesterday"),
        (accuracy, "versions", {"torch": {"deep": NAN}}),
        (accuracy, "machine", {"system": "Linux"}),
        (accuracy, "note", "\x1b[31m"),
        (accuracy, "commit", "<script>"),
        (onnx, "latency", [latency(1, 1, 5.0) | {"p42_ms": 5.0}]),
        (onnx, "precision", "fp8"),
        (onnx, "profile", [{"operator": "Conv", "nodes": 0, "ms": 0.5, "share": 1.0}]),
    ],
)
def test_a_bad_value_is_refused_by_its_name(make: Any, key: str, value: Any) -> None:
    with pytest.raises(ZooError, match=r"\br\.json\b") as refused:
        check(make(**{key: value}), "r.json")
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_typo_is_found_and_keys_of_the_other_kind_are_refused() -> None:
    with pytest.raises(ZooError, match=r"unknown r\.json key 'spike_per_image'; did you mean spikes_per_image"):
        check(accuracy(spike_per_image=1), "r.json")
    with pytest.raises(ZooError, match=r"unknown r\.json key 'latency'"):
        check(accuracy(latency=[]), "r.json")
    with pytest.raises(ZooError, match="expected one JSON object"):
        check([], "r.json")


def test_results_of_trainings_and_of_arms() -> None:
    """Comparisons and ablations count on what a later validation does not know; the leaderboard takes no arms."""
    training = {"accuracy": Training}
    check(accuracy(), "r.json", training)
    for key in ("spikes_per_image", "train_images", "epochs", "seed", "train_seconds"):
        with pytest.raises(ZooError, match=f"r.json {key}: .* not None"):
            check(accuracy(**{key: None}), "r.json", training)
    with pytest.raises(ZooError, match=r"unknown kind .*'onnx' \(known: accuracy\)"):
        check(onnx(), "r.json", training)
    arm = accuracy(plan="p", arm="a", train_loss=1.0, recipe={})
    assert check(arm, "r.json", {"accuracy": Arm}) is arm
    with pytest.raises(ZooError, match=r"unknown r\.json key 'plan'"):
        check(arm, "r.json")


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("--data-dir=/home/alice/data", "--data-dir=data"),
        ("~/runs/x", "x"),
        ("../alice/x", "x"),
        ("runs/x", "runs/x"),
        ("folder:/home/alice/flowers", "folder:flowers"),
        ("--dataset=folder:~/flowers/", "--dataset=folder:flowers"),
        ("folder:data/flowers", "folder:data/flowers"),
        ("i2e:folder:/home/alice/flowers", "i2e:folder:flowers"),
        ("--dataset=dvsgesture:/home/alice/DVS", "--dataset=dvsgesture:DVS"),
        ("i2e:cifar10", "i2e:cifar10"),
        ("--init=local-dir:~/run", "--init=local-dir:run"),
        ("--lr=0.1", "--lr=0.1"),
        ("{name: channel}", "{name: channel}"),
    ],
)
def test_where_somebody_keeps_files_is_no_part_of_a_result(word, kept):
    assert without_folders(word) == kept


def test_a_page_that_an_ablation_renders_does_not_make_a_commit_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    page, code = (tmp_path / name for name in ("recipes/studies/ablation/plans/a/README.md", "zoo/a.py"))
    git("init")
    for file in (page, code):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    git("add", ".")
    git("commit", "-m", "all")
    page.write_text("after")
    assert not provenance.commit().endswith("-dirty")
    code.write_text("after")
    assert provenance.commit().endswith("-dirty")


def test_a_gpu_is_named_where_it_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert [provenance.machine(used)["gpu"] for used in (False, True)] == [None, "a GPU"]
