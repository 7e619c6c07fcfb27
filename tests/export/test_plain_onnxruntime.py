"""One preparation everywhere: pictures of any shape have the same classes by all ways."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from pictures import make_stretched

import export
import zoo
from recipes.predict import predict
from recipes.validate import validate

NAME = "svgg11_w16.t4_cifar10"
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(("zoo", "export", "recipes", "leaderboard", "torch", "timm", "torchvision"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Stretched pictures, and the class that `predict` names for each."""
    files = make_stretched(tmp_path_factory.mktemp("pictures") / "stretched", 60)
    found = {Path(one["image"]): one["top"][0]["label"] for one in predict(zoo.load(NAME), files, top=1)}
    assert list(found) == files
    assert len(Counter(found.values())) >= 3  # or agreement would be chance
    return found


@pytest.mark.parametrize("layout", ["flat", "function", "step"])
def test_the_lines_for_onnxruntime_alone_say_what_predict_says(
    layout: str, pictures: dict[Path, str], tmp_path: Path
) -> None:
    export.to_onnx(zoo.load(NAME), tmp_path / "model.onnx", layout=layout, verify=False)
    words = [ROOT / "export" / "plain_onnxruntime.py", tmp_path / "model.onnx", *pictures]
    command = [sys.executable, "-I", "-c", ALONE, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{file} {label}" for file, label in pictures.items()]


@pytest.mark.parametrize(
    ("layout", "encoding", "crop", "words"),
    [("step", "latency", "center", "export --layout flat"), ("flat", "direct", "squash", "crop_mode squash")],
)
def test_what_these_lines_do_not_do_is_refused(
    layout: str, encoding: str, crop: str, words: str, pictures: dict[Path, str], tmp_path: Path
) -> None:
    model = zoo.create_model("svgg11_w8", timesteps=1, encoding=encoding)
    model.pretrained_cfg["crop_mode"] = crop
    export.to_onnx(model, tmp_path / "model.onnx", layout=layout, verify=False)
    command = [ROOT / "export" / "plain_onnxruntime.py", tmp_path / "model.onnx", *pictures]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_a_network_that_was_not_trained_names_no_class(pictures: dict[Path, str], tmp_path: Path) -> None:
    export.to_onnx(zoo.create_model("svgg11_w8", timesteps=1), tmp_path / "model.onnx", verify=False)
    command = [ROOT / "export" / "plain_onnxruntime.py", tmp_path / "model.onnx", next(iter(pictures))]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *command], capture_output=True, text=True, check=True)
    assert re.search(r" class \d$", done.stdout.strip())


def test_validate_says_what_predict_says(pictures: dict[Path, str], tmp_path: Path) -> None:
    """Each picture lies where predict puts it; a picture for each class that no other is of lies in the wrong one."""
    first, *_ = pictures
    classes = zoo.load(NAME).pretrained_cfg["label_names"]
    for part in ("train", "test"):
        for label in classes:
            (tmp_path / part / label).mkdir(parents=True)
            others = [file for file, found in pictures.items() if found == label and part == "test"]
            for file in others or [first]:
                shutil.copy(file, tmp_path / part / label)
    missing = len(set(classes) - set(pictures.values()))
    result = validate(NAME, f"folder:{tmp_path}", device="cpu")
    assert result["images"] == len(pictures) + missing
    assert result["top1"] == pytest.approx(100 * len(pictures) / (len(pictures) + missing))
