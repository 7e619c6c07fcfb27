"""What a result may hold: each kind, and one line for what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import accuracy, latency, onnx

from zoo.errors import ZooError
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
    ("key", "value"),
    [
        ("schema", True),
        ("kind", "acuracy"),
        ("model", "../../etc"),
        ("tag", "a/b"),
        ("dataset", None),
        ("images", 10000.0),
        ("top1", 100.1),
        ("top1", True),
        ("top1", NAN),
        ("spikes_per_image", 10**400),
        ("spikes_per_layer", {"lif": None}),
        ("spikes_per_step", [1.0]),
        ("timesteps", 0),
        ("scaling", {"power": 0.5}),
        ("comparison", " "),
        ("weights_sha256", "a" * 64 + "\n"),
        ("date", "yesterday"),
        ("versions", {"torch": {"deep": NAN}}),
        ("machine", {"system": "Linux"}),
        ("note", "\x1b[31m"),
        ("commit", "<script>"),
        ("reference", {"top1": 940, "spikes_per_image": None, "citation": "x"}),
    ],
)
def test_a_bad_value_is_refused_by_its_name(key: str, value: Any) -> None:
    with pytest.raises(ZooError, match=r"\br\.json\b") as refused:
        check(accuracy(**{key: value}), "r.json")
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency", [latency(0, 1, 5.0)]),
        ("latency", [latency(1, 1, 5.0) | {"p42_ms": 5.0}]),
        ("precision", "fp8"),
        ("profile", [{"operator": "Conv", "nodes": 0, "ms": 0.5, "share": 1.0}]),
        ("onnx_sha256", "e"),
    ],
)
def test_a_bad_value_of_a_graph_is_refused_by_its_name(key: str, value: Any) -> None:
    with pytest.raises(ZooError, match=rf"^r\.json:? {key}"):
        check(onnx(**{key: value}), "r.json")


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
