"""Studies of export: forms of the flat graph, all networks, and other runtimes beside ONNX Runtime."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_export import network

import export
from export.run import create_session
from export.studies import measure_forms, runtimes, survey
from export.studies.runtimes import RUNTIMES, Runtime, Session, compare_runtimes
from zoo import ZooError

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 3


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (measure_forms, ["--runs", "0"], "runs: input should be greater than or equal to 1"),
        (measure_forms, ["--json", "{folder}"], "is a directory"),
        (survey, ["nosuch"], "no architecture is called nosuch"),
        (survey, ["--layouts", "round"], "unknown layout 'round'"),
        (survey, ["--timesteps", "0"], "timesteps must be an integer from 1"),
        (survey, ["--json", "{folder}"], "is a directory"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_work(command, arguments, words, tmp_path, monkeypatch):
    work = "measure" if command is measure_forms else "survey"
    monkeypatch.setattr(command, work, lambda *_: pytest.fail("measured"))
    with pytest.raises(ZooError, match=words):
        command.main(["svgg11_w8", *(word.format(folder=tmp_path) for word in arguments)])


@pytest.mark.slow
def test_forms_and_survey(tmp_path):
    measure_forms.main(
        ["svgg11_w8", "--batch", "1", "2", "--rounds", "1", "--runs", "2", "--json", str(tmp_path / "f.json")]
    )
    batches = json.loads((tmp_path / "f.json").read_text())["networks"]["svgg11_w8"]
    assert list(batches) == ["1", "2"]
    assert [len(rows) for rows in batches.values()] == [5, 5]
    assert all(row["p50_ms"] > 0 for rows in batches.values() for row in rows.values())
    survey.main(["svgg11_w8", "--layouts", "flat", "--timesteps", "1", "--json", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text())["networks"]["svgg11_w8"]["flat"]["identical"]


def test_a_network_that_fails_does_not_stop_the_others(monkeypatch):
    def fail(*_, **__):
        raise ZooError("no such network today")

    monkeypatch.setattr(survey.zoo, "create_model", fail)
    assert survey.survey("svgg11_w8", "flat", 1) == {"error": "no such network today"}


# -- other runtimes


@pytest.fixture(scope="module", params=["flat", "step"])
def graph(request, tmp_path_factory):
    """A graph and images for it."""
    torch.manual_seed(0)
    net, file = network(timesteps=2), tmp_path_factory.mktemp("graph") / "x.onnx"
    images = np.random.default_rng(0).standard_normal((IMAGES, *net.pretrained_cfg["input_size"])).astype(np.float32)
    export.to_onnx(net, file, layout=request.param, verify=False)
    return onnx.load(file), images


def other(file, change=lambda name, value: value):
    """ONNX Runtime once more, with other results."""
    session = create_session(file.read_bytes())
    names = [output.name for output in session.get_outputs()]

    def call(inputs):
        return {name: change(name, value) for name, value in zip(names, session.run(names, inputs), strict=True)}

    return call


def compared(graph, change=lambda name, value: value):
    ((name, found),) = compare_runtimes(*graph, {"other": lambda file: other(file, change)})
    assert name == "other"
    return found


def test_the_same_spikes(graph):
    found = compared(graph)
    assert (found["images"], found["same_class"], found["differing_counts"], found["spikes"]) == (IMAGES, IMAGES, 0, 1)
    assert (found["worst_layer_spikes"], found["fractions"], found["not_finite"]) == (1, 0, 0)


def test_other_spikes(graph):
    """One count more in one layer, each step of each image."""
    seen = {}

    def keep(name, value):
        seen[name] = seen.get(name, 0) + float(value.sum())
        return value

    compared(graph, keep)
    total = sum(count for name, count in seen.items() if name.startswith("spikes/"))
    found = compared(graph, lambda name, value: value + (name == "spikes/lif1"))
    assert found["differing_counts"] == pytest.approx(IMAGES * 2 / total)
    assert found["spikes"] == pytest.approx(1 + IMAGES * 2 / total)
    assert found["worst_layer"] == "lif1"
    assert found["worst_layer_spikes"] == pytest.approx(1 + IMAGES * 2 / seen["spikes/lif1"])
    assert (found["same_class"], found["fractions"]) == (IMAGES, 0)


def test_differences_that_cancel_are_differences(graph):
    sign = iter([1, -1] * 99)
    found = compared(graph, lambda name, value: value + (next(sign) if name == "spikes/lif1" else 0))
    assert found["differing_counts"] > 0


def test_other_classes_half_spikes_and_no_numbers(graph):
    assert compared(graph, lambda name, value: -value if name == "logits" else value)["same_class"] == 0
    half = compared(graph, lambda name, value: value + 0.5 * (name == "spikes/lif1"))
    assert (half["fractions"], half["not_finite"]) == (IMAGES * 2, 0)
    nothing = compared(graph, lambda name, value: value * np.nan if name == "logits" else value)
    assert nothing["not_finite"] == IMAGES * 10
    broken = compared(graph, lambda name, value: value * np.nan if name == "spikes/lif1" else value)
    assert (broken["fractions"], broken["not_finite"], broken["worst_layer"]) == (0, IMAGES * 2, "lif1")
    assert broken["differing_counts"] is broken["spikes"] is broken["worst_layer_spikes"] is None
    assert runtimes.said(broken) == f"{IMAGES} of {IMAGES} images in the same class, {IMAGES * 2} values are no numbers"


def test_a_runtime_that_fails_is_one_of_several(graph):
    def broken(file):
        raise RuntimeError("no such\noperation")

    def late(file):
        return other(file, lambda name, value: 1 / 0)

    found = dict(compare_runtimes(*graph, {"broken": broken, "late": late, "other": other}))
    assert found["broken"] == {"error": "RuntimeError: no such operation"}
    assert found["late"] == {"error": "ZeroDivisionError: division by zero"}  # not ONNX Runtime's
    assert found["other"]["same_class"] == IMAGES


def test_a_session_of_another_runtime_gives_the_outputs_that_are_asked_for():
    x = np.arange(6).reshape(2, 3).T  # which a runtime that reads memory as it lies would see in another order
    (value,) = Session(lambda given: {"a": np.frombuffer(given["x"], x.dtype), "b": None}).run(["a"], {"x": x})
    assert np.array_equal(value, x.ravel())


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_that_are_installed_compute_the_same_spikes(name, graph):
    module = pytest.importorskip(RUNTIMES[name].module)
    ((_, found),) = compare_runtimes(*graph, {name: lambda file: RUNTIMES[name].create(module, file)})
    assert found["fractions"] == found["not_finite"] == 0, found
    if "default" not in name:  # which may be bfloat16
        assert found["same_class"] == IMAGES
        assert found["differing_counts"] < 0.01


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RUNTIMES, "tract", Runtime("onnxruntime", "numpy", lambda module, file: other(file)))
    file, images = tmp_path / "x.json", tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).integers(256, size=(3, 3, 16, 16), dtype=np.uint8))
    words = ["tiny", "--data", str(images), "--limit", "2", "--runtimes", "tract"]
    monkeypatch.setattr(runtimes, "load", lambda name: (network(timesteps=1), {}))
    runtimes.main([*words, "--forms", "flat", "step", "--json", str(file)])
    told = json.loads(file.read_text())
    assert [row["form"] for row in told["rows"]] == ["flat", "step"]
    assert all(row["version"] == np.__version__ and row["same_class"] == 2 for row in told["rows"])
    assert told["data"] == "images.npy"
    assert "2 of 2 images in the same class, 0.0e+00 of the spikes differ" in capsys.readouterr().out


def test_a_form_that_a_network_lacks_is_one_of_several(tmp_path, monkeypatch, capsys):
    """And a version is that of the module, where it came in a package of another name."""
    monkeypatch.setitem(RUNTIMES, "opencv", Runtime("onnxruntime", "no-such-package", lambda module, file: other(file)))
    monkeypatch.setattr(runtimes, "load", lambda name: (network("psn", timesteps=2), {}))
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 16, 16), np.uint8))
    words = ["tiny", "--data", str(tmp_path / "x.npy"), "--runtimes", "opencv", "--json", str(tmp_path / "x.json")]
    runtimes.main([*words, "--forms", "step", "flat"])
    (row,) = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert (row["form"], row["version"]) == ("flat", onnxruntime.__version__)
    assert "psn" in capsys.readouterr().out.lower()


def test_what_is_not_installed_is_said_first(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "opencv", Runtime("no_such_module", "no-such-package", lambda *_: None))
    monkeypatch.setattr(runtimes, "load", lambda name: pytest.fail("it was loaded"))
    with pytest.raises(ZooError, match="no-such-package is not installed: pip install no-such-package"):
        runtimes.main(["sresnet19_w16", "--data", "digits", "--runtimes", "opencv"])
