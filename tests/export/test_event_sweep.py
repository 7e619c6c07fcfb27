"""The sweep over firing rates: spikes are as asked, and all forms compute the same convolution."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch

from export.studies import event_sweep
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
        np.testing.assert_allclose(run()[1], dense.transpose(0, 2, 3, 1), atol=1e-5)
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
