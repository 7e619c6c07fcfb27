"""Results side by side."""

from __future__ import annotations

import pytest
from conftest import accuracy, put

from recipes import compare
from zoo import ZooError


def test_results_are_subtracted_if_they_are_of_the_same_images(tmp_path, capsys):
    first = str(put(tmp_path / "0.json", accuracy(top1=60.0)))
    run = put(tmp_path / "run" / "result.json", accuracy(top1=61.5, seed=1)).parent
    compare.main([first, str(run)])
    assert "61.50 (+1.50)" in capsys.readouterr().out
    arm = put(tmp_path / "arm.json", accuracy(plan="p", arm="scaled", train_loss=1.0, recipe={}))
    compare.main([first, str(arm)])
    assert " scaled " in capsys.readouterr().out
    other = put(tmp_path / "2.json", accuracy(data_sha256="0" * 64))
    with pytest.raises(ZooError, match=r"results of data_sha256 .* have no difference"):
        compare.main([first, str(other)])
