"""Results side by side."""

from __future__ import annotations

import json

import pytest
from conftest import accuracy

from recipes import compare
from zoo import ZooError


def test_results_are_subtracted_if_they_are_of_the_same_images(tmp_path, capsys):
    files = [str(tmp_path / f"{i}.json") for i in range(3)]
    results = [accuracy(top1=60.0), accuracy(top1=61.5, seed=1), accuracy(data_sha256="0" * 64)]
    for file, result in zip(files, results, strict=True):
        (tmp_path / file).write_text(json.dumps(result))
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(json.dumps(results[1]))
    compare.main([files[0], str(run)])
    assert "61.50 (+1.50)" in capsys.readouterr().out
    (tmp_path / "arm.json").write_text(json.dumps(accuracy(plan="p", arm="scaled", train_loss=1.0, recipe={})))
    compare.main([files[0], str(tmp_path / "arm.json")])
    assert " scaled " in capsys.readouterr().out
    with pytest.raises(ZooError, match=r"results of data_sha256 .* have no difference"):
        compare.main(files)
