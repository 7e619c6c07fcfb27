"""Published claims: quoted with their source, apart from what was measured."""

from __future__ import annotations

from leaderboard.references import REPRODUCTIONS, published
from zoo.files import read_json
from zoo.names import all_references


def test_every_claim_is_a_row_with_its_source():
    table = published()
    assert {row.tier for row in table} == {"published"}
    assert all(row.published_citation and row.top1 == row.published_top1 and not row.runs for row in table)
    assert len({row.path for row in table}) == len(table)
    claims = [claim[dataset] for claim in all_references() for dataset in ("cifar10", "cifar100")]
    assert sorted(row.top1 for row in table) == sorted(claim for claim in claims if claim is not None)


def test_a_third_party_stands_beside_the_claim():
    (row,) = [row for row in published() if row.path == "cifar100/qkformer_4_384.QKFormer_t4_aug"]
    assert (row.top1, [again.top1 for again in row.reproductions]) == (81.15, [79.72])
    assert row.reproductions[0].citation.startswith("STEP")
    claims = {(claim["model"], claim["method"]) for claim in all_references()}
    assert {(again["model"], again["method"]) for again in read_json(REPRODUCTIONS)} <= claims
