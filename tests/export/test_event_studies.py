"""Studies: spikes are as asked, all forms compute one convolution; what is there is not measured again."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch

from export.studies import event_sweep, latency
from zoo import ZooError
from zoo.kernels.build import find_compiler


def test_spikes_have_the_rate_and_correlation_asked_for():
    draw = np.random.default_rng(0)
    for rate, correlation in ((0.3, 0.5), (0.05, 0.0), (0.6, 0.9)):
        spikes = event_sweep.draw_spikes((3, 20, 20, 64), rate, correlation, draw).numpy().reshape(3, -1)
        assert spikes.mean() == pytest.approx(rate, rel=0.05)
        assert np.corrcoef(spikes)[np.triu_indices(3, 1)] == pytest.approx(correlation, abs=0.03)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_all_forms_compute_one_convolution():
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((32, 32, 3, 3), dtype=np.float32) / 20
    spikes = event_sweep.draw_spikes((4, 9, 7, 32), 0.3, 0.5, draw)
    maps = spikes.permute(0, 3, 1, 2).float().numpy()
    (dense,) = ort.InferenceSession(event_sweep.float_graph(weight)).run(None, {"x": maps})
    (int8,) = ort.InferenceSession(event_sweep.int8_graph(weight)).run(None, {"x": spikes.numpy()})
    with event_sweep.TimedKernel("float32", torch.from_numpy(weight), spikes).ready(1, 1) as run:
        np.testing.assert_allclose(run(), dense.transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose((int8.astype(int) - 128) * 0.25, dense.transpose(0, 2, 3, 1), atol=0.3)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_the_command_writes_times_and_their_picture(tmp_path, capsys):
    pytest.importorskip("altair")
    words = "--channels 16 32 --rates 0.1 0.5 --correlations 0 --runs 4 --side 5"
    event_sweep.main([*words.split(), "--out", str(tmp_path / "sweep")])
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert len(result["points"]) == 2 * (2 + 2 * 2)
    assert all(point["least_ms"] == min(point["ms"]) > 0 and len(point["ms"]) == 4 for point in result["points"])
    svg = (tmp_path / "sweep.svg").read_text()
    assert svg.startswith("<svg")
    assert "32 channels" in svg


def report(times: dict[str, list[float]]) -> dict:
    settings = [(1, 1), (1, 2)]
    rows = lambda ms: [{"batch": b, "threads": t, "p50_ms": m} for (b, t), m in zip(settings, ms, strict=True)]  # noqa: E731
    return {"subjects": [{"name": name, "latency": rows(ms)} for name, ms in times.items()]}


def test_the_table_has_a_row_for_each_setting(tmp_path):
    with pytest.raises(ZooError, match="measure a network first"):
        latency.table(tmp_path)
    for steps, factor in ((10, 2), (4, 1)):
        times = {"fp32.onnx": [11.0 * factor, 6.04], "int16.onnx": [3.0, 2.0], "eager": [14, 15]}
        (tmp_path / f"a.t4_x.t{steps}.json").write_text(json.dumps(report(times)))
    (tmp_path / "of_something_else.json").write_text("{}")
    lines = latency.table(tmp_path).splitlines()
    assert lines[2] == "| a.t4_x | 4 | 1 | 1 | 11.0 |  | 3.0 |  |  |  | 14.0 |  |  |  |"
    assert lines[3].startswith("| a.t4_x | 4 | 1 | 2 | 6.0 |")
    assert lines[4].startswith("| a.t4_x | 10 | 1 | 1 | 22.0 |")
    assert len(lines) == 6
    with pytest.raises(ZooError):
        latency.table(tmp_path, ["b.t4_x"])


def test_what_is_there_is_not_measured_again(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(latency, "_run", lambda *words: ran.append(words))
    (tmp_path / "a.t2.json").write_text("{}")
    words = ["a", "--timesteps", "2", "4", "--out", str(tmp_path), "--against", "relu"]
    latency.main([*words, "--batch", "1"])
    assert [w[0] for w in ran] == ["export", "export", "export", "export.bench_ort"]
    assert all("4" in w for w in ran[:3])
