"""Other runtimes beside ONNX Runtime: what is compared, what is said of one that fails, those that are installed."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_export import network

import export
from export.runtimes import RUNTIMES, compare_sessions
from export.runtimes import __main__ as command
from export.runtimes.sessions import Runtime
from export.session import create_session
from zoo import ZooError

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 3


@pytest.fixture(scope="module", params=["flat", "step"])
def graph(request, tmp_path_factory):
    """A graph and images for it."""
    torch.manual_seed(0)
    net, file = network(timesteps=2), tmp_path_factory.mktemp("graph") / "x.onnx"
    images = np.random.default_rng(0).standard_normal((IMAGES, *net.pretrained_cfg["input_size"])).astype(np.float32)
    export.to_onnx(net, file, layout=request.param, verify=False)
    return onnx.load(file), images


class Other:
    """ONNX Runtime once more, with other results."""

    def __init__(self, file, change=lambda name, value: value):
        self.session, self.change = create_session(file.read_bytes()), change

    def run(self, outputs, inputs, options=None):
        found = self.session.run(outputs, inputs)
        return [self.change(name, value) for name, value in zip(outputs, found, strict=True)]


def compared(graph, change=lambda name, value: value):
    ((name, found),) = compare_sessions(*graph, {"other": lambda file: Other(file, change)})
    assert name == "other"
    return found


def test_the_same_spikes(graph):
    found = compared(graph)
    assert (found["images"], found["same_class"], found["differing_counts"], found["spikes"]) == (IMAGES, IMAGES, 0, 1)
    assert (found["worst_layer_spikes"], found["fractions"], found["not_finite"]) == (1, 0, 0)


def test_other_spikes(graph):
    """One count more in one layer, each step of each image."""
    total = sum(float(counts.sum()) for counts in _counts(graph).values())
    found = compared(graph, lambda name, value: value + (name == "spikes/lif1"))
    assert found["differing_counts"] == pytest.approx(IMAGES * 2 / total)
    assert found["spikes"] == pytest.approx(1 + IMAGES * 2 / total)
    assert found["worst_layer"] == "lif1"
    first = float(_counts(graph)["spikes/lif1"].sum())
    assert found["worst_layer_spikes"] == pytest.approx(1 + IMAGES * 2 / first)
    assert (found["same_class"], found["fractions"]) == (IMAGES, 0)


def _counts(graph):
    seen = {}

    def keep(name, value):
        if name.startswith("spikes/"):
            seen.setdefault(name, []).append(value)
        return value

    compared(graph, keep)
    return {name: np.concatenate(values) for name, values in seen.items()}


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
    assert command.said(broken) == f"{IMAGES} of {IMAGES} images in the same class, {IMAGES * 2} values are no numbers"


def test_a_runtime_that_fails_is_one_of_several(graph):
    def broken(file):
        raise RuntimeError("no such\noperation")

    def late(file):
        return Other(file, lambda name, value: 1 / 0)

    found = dict(compare_sessions(*graph, {"broken": broken, "late": late, "other": Other}))
    assert found["broken"] == {"error": "RuntimeError: no such operation"}
    assert found["late"] == {"error": "ZeroDivisionError: division by zero"}  # not ONNX Runtime's
    assert found["other"]["same_class"] == IMAGES


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_that_are_installed_compute_the_same_spikes(name, graph):
    module = pytest.importorskip(RUNTIMES[name].module)
    ((_, found),) = compare_sessions(*graph, {name: lambda file: RUNTIMES[name].create(module, file)})
    assert found["fractions"] == found["not_finite"] == 0, found
    if "default" not in name:  # which may be bfloat16
        assert found["same_class"] == IMAGES
        assert found["differing_counts"] < 0.01


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.RUNTIMES, "tract", Runtime("onnxruntime", "numpy", lambda module, file: Other(file)))
    file, images = tmp_path / "x.json", tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).integers(256, size=(3, 3, 16, 16), dtype=np.uint8))
    words = ["tiny", "--data", str(images), "--limit", "2", "--runtimes", "tract"]
    monkeypatch.setattr(command, "load", lambda name: (network(timesteps=1), {}))
    command.main([*words, "--forms", "flat", "step", "--json", str(file)])
    told = json.loads(file.read_text())
    assert [row["form"] for row in told["rows"]] == ["flat", "step"]
    assert all(row["version"] == np.__version__ and row["same_class"] == 2 for row in told["rows"])
    assert told["data"] == "images.npy"
    assert "2 of 2 images in the same class, 0.0e+00 of the spikes differ" in capsys.readouterr().out


def test_a_form_that_a_network_lacks_is_one_of_several(tmp_path, monkeypatch, capsys):
    """And a version is that of the module, where it came in a package of another name."""
    other = Runtime("onnxruntime", "no-such-package", lambda module, file: Other(file))
    monkeypatch.setitem(command.RUNTIMES, "opencv", other)
    monkeypatch.setattr(command, "load", lambda name: (network("psn", timesteps=2), {}))
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 16, 16), np.uint8))
    words = ["tiny", "--data", str(tmp_path / "x.npy"), "--runtimes", "opencv", "--json", str(tmp_path / "x.json")]
    command.main([*words, "--forms", "step", "flat"])
    (row,) = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert (row["form"], row["version"]) == ("flat", onnxruntime.__version__)
    assert "psn" in capsys.readouterr().out.lower()


def test_what_is_not_installed_is_said_first(monkeypatch):
    monkeypatch.setitem(command.RUNTIMES, "opencv", Runtime("no_such_module", "no-such-package", lambda *_: None))
    monkeypatch.setattr(command, "load", lambda name: pytest.fail("it was loaded"))
    with pytest.raises(ZooError, match="no-such-package is not installed: pip install no-such-package"):
        command.main(["sresnet19_w16", "--data", "digits", "--runtimes", "opencv"])
