"""The commands that measure export itself: forms of the flat graph, and a survey of networks."""

from __future__ import annotations

import json

import pytest

from export import measure_forms, survey
from zoo import ZooError


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (measure_forms, ["--runs", "0"], "runs must lie in 1"),
        (measure_forms, ["--rounds", "0"], "rounds must lie in 1"),
        (measure_forms, ["--batch", "0"], "batch size must lie in 1"),
        (measure_forms, ["--json", "{folder}"], "is a directory"),
        (survey, ["nosuch"], "no architecture is called nosuch"),
        (survey, ["--layouts", "round"], "unknown layout 'round'"),
        (survey, ["--timesteps", "0"], "timesteps must be an integer from 1"),
        (survey, ["--json", "{folder}"], "is a directory"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_work(command, arguments, words, tmp_path, monkeypatch):
    monkeypatch.setattr(
        command, "measure" if command is measure_forms else "survey", lambda *_: pytest.fail("measured")
    )
    with pytest.raises(ZooError, match=words):
        command.main(["svgg11_w8", *(word.format(folder=tmp_path) for word in arguments)])


@pytest.mark.slow
def test_forms_and_survey(tmp_path):
    measure_forms.main(
        ["svgg11_w8", "--batch", "1", "--rounds", "1", "--runs", "2", "--json", str(tmp_path / "f.json")]
    )
    rows = json.loads((tmp_path / "f.json").read_text())["networks"]["svgg11_w8"]["1"]
    assert len(rows) == 5
    assert all(row["p50_ms"] > 0 for row in rows.values())
    survey.main(["svgg11_w8", "--layouts", "flat", "--timesteps", "1", "--json", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text())["networks"]["svgg11_w8"]["flat"]["identical"]


def test_a_network_that_fails_does_not_stop_the_others(monkeypatch):
    def fail(*_, **__):
        raise ZooError("no such network today")

    monkeypatch.setattr(survey.zoo, "create_model", fail)
    assert survey.survey("svgg11_w8", "flat", 1) == {"error": "no such network today"}
