"""Published claims: quoted with their source, apart from what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import accuracy

from leaderboard.collect import rows
from leaderboard.references import REFERENCES, published
from leaderboard.render import render
from zoo.errors import ZooError


def test_every_claim_has_its_source_and_a_third_party_stands_beside_it() -> None:
    table = published()
    assert {row.tier for row in table} == {"published"}
    assert all(row.published_citation and row.top1 == row.published_top1 and not row.runs for row in table)
    (row,) = [row for row in table if row.path == "cifar100/HST-4-384.QKFormer_t4"]
    assert (row.top1, [again.top1 for again in row.reproductions]) == (81.15, [79.72])
    assert "STEP" in row.reproductions[0].citation


def test_a_claim_is_never_ranked_with_what_was_measured() -> None:
    measured = rows({"a.json": accuracy()})
    assert render([*measured, *published()]) == render(measured)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"top1": 100.1}, "top1 is 100.1"),
        ({"citation": ""}, "citation is ''"),
        ({"network": "../x"}, "network is"),
        ({"reproductions": [{"top1": 90.0}]}, "reproductions is"),
        ({"note": "x"}, "a claim holds"),
    ],
)
def test_a_malformed_claim_is_refused(tmp_path: Any, change: dict[str, Any], problem: str) -> None:
    entries = json.loads(REFERENCES.read_text())
    (tmp_path / "r.json").write_text(json.dumps([entries[0] | change]))
    with pytest.raises(ZooError, match=problem):
        published(tmp_path / "r.json")
    (tmp_path / "r.json").write_text(json.dumps(entries[:1] * 2))
    with pytest.raises(ZooError, match="twice"):
        published(tmp_path / "r.json")
