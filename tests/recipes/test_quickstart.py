"""README's first command: what its page is made of is there, under the names that the commands write."""

from __future__ import annotations

import json
import re
import shutil

import export
import zoo
from export import bench_ort
from recipes import predict
from recipes.quickstart import main
from zoo.names import BUNDLED

NAME = "sresnet19_w16.t2_cifar10"


def test_the_page_shows_what_the_commands_wrote(tmp_path, capsys):
    """With the network as it is bundled, for one that has learnt to read."""
    main(["digits", str(tmp_path)])
    shutil.copytree(BUNDLED / NAME, tmp_path / "run")
    predict.main([str(tmp_path / "run"), str(tmp_path / "digits"), "--spikes", "--json"])
    (tmp_path / "predicted.json").write_text(text := capsys.readouterr().out)
    export.to_onnx(zoo.load(NAME), tmp_path / "fp32.onnx", verify=False)
    against = ["--against", "relu", "--network", str(tmp_path / "run"), "--no-memory"]
    bench_ort.main([str(tmp_path / "fp32.onnx"), *against, "--runs", "1", "--json", str(tmp_path / "times.json")])
    main(["page", str(tmp_path)])
    page = (tmp_path / "index.html").read_text()
    assert [f'alt="the digit {digit}"' in page for digit in range(10)] == [True] * 10
    for image in json.loads(text):
        assert f"{sum(map(sum, image['spikes'].values())):,}</figcaption>" in page
    for name in ("float32", "its ReLU twin, one step"):
        assert re.search(rf"<td>{name}</td><td>\d+\.\d\d</td>", page)
