"""What takes minutes: the full-size network. `bash tests/run.sh --slow` runs it, too."""

from __future__ import annotations

import pytest

import export
import zoo


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_size_export_is_verified(tmp_path):
    report = export.to_onnx(zoo.create_model("sresnet19_gs"), tmp_path / "sresnet19.onnx")
    assert report["verification"]["dyadic"]["identical"]
    assert report["bytes"] > 50_000_000
