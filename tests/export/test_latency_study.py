"""The study of latencies: what is there is not measured again, and the table is that of the files."""

from __future__ import annotations

import json

import pytest

from export.studies import latency
from zoo import ZooError


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
