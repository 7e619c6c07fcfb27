"""Where a number comes from, without where somebody keeps files."""

from __future__ import annotations

import subprocess

import pytest
import torch

from zoo import provenance
from zoo.provenance import without_folders


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("--data-dir=/home/alice/data", "--data-dir=data"),
        ("~/runs/x", "x"),
        ("../alice/x", "x"),
        ("/a/b", "b"),
        ("runs/x", "runs/x"),
        ("folder:/home/alice/flowers", "folder:flowers"),
        ("--dataset=folder:~/flowers/", "--dataset=folder:flowers"),
        ("folder:data/flowers", "folder:data/flowers"),
        ("local-dir:/home/alice/run", "local-dir:run"),
        ("--init=local-dir:~/run", "--init=local-dir:run"),
        ("local-dir:runs/x", "local-dir:runs/x"),
        ("--lr=0.1", "--lr=0.1"),
        ("{name: channel}", "{name: channel}"),
    ],
)
def test_where_somebody_keeps_files_is_no_part_of_a_result(word, kept):
    assert without_folders(word) == kept


def test_a_page_that_an_ablation_renders_does_not_make_a_commit_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    page, code = (tmp_path / name for name in ("recipes/studies/ablation/plans/a/README.md", "zoo/a.py"))
    git("init")
    for file in (page, code):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    git("add", ".")
    git("commit", "-m", "all")
    page.write_text("after")
    assert not provenance.commit().endswith("-dirty")
    code.write_text("after")
    assert provenance.commit().endswith("-dirty")


def test_a_gpu_is_named_where_it_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert [provenance.machine(used)["gpu"] for used in (False, True)] == [None, "a GPU"]
