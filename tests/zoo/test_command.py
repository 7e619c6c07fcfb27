"""`python -m zoo`: what it lists, that its numbers are right, and a user's own models and rules."""

import json
import re

import pytest
from conftest import ROOT

import zoo
from zoo import names
from zoo.__main__ import describe, main
from zoo.data.event_sets import KINDS
from zoo.errors import ZooError
from zoo.files import read_json
from zoo.models.catalogue import catalogue, count
from zoo.names import plain_name, references
from zoo.registry import GS
from zoo.scaling import PRESETS


def printed(capsys, *argv: str) -> str:
    main(list(argv))
    return capsys.readouterr().out


def test_everything_is_listed(capsys):
    """A twin has the numbers of its plain twin."""
    found = json.loads(printed(capsys, "list", "--json"))
    rows = {row["model"]: row for row in found["models"]}
    assert list(rows) == zoo.list_models()
    for name, row in rows.items():
        assert list(row["pretrained"]) == zoo.list_pretrained(f"{name}.*")
        if plain_name(name) == name:
            assert rows[f"{name}_gs"] == row | {"model": f"{name}_gs", "pretrained": rows[f"{name}_gs"]["pretrained"]}
    assert found["keywords"] == names.keywords()


def test_names_are_known_without_the_networks():
    """The file that `python -m zoo.models.catalogue` writes is of the networks and keywords as they are."""
    assert read_json(names.CATALOGUE) == catalogue()
    assert names.architectures() == sorted(zoo.list_models())
    assert tuple(KINDS) == names.RECORDINGS


def test_dense_operations_by_hand():
    sides = {"svgg11": [32, 16, 8, 8, 4, 4, 2, 2], "svgg16": [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3}
    widths = {
        "svgg11": [64, 128, 256, 256, 512, 512, 512, 512],
        "svgg16": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
    }
    for name in sides:
        channels = [3, *widths[name]]
        expected = sum(9 * a * b * side * side for a, b, side in zip(channels, channels[1:], sides[name], strict=False))
        found = count(name)
        assert found["dense_operations"] == expected + 512 * 10


def test_list(capsys):
    text = printed(capsys, "list", "sresnet19*", "svgg11_w8", "--published")
    head, *lines = text.split("\n\n")[0].splitlines()
    assert head.split("  ")[0] == "model"
    rows = {line.split()[0]: line for line in lines}
    assert set(rows) == {*zoo.list_models("sresnet19*"), "svgg11_w8"}
    assert "12.57" in rows["sresnet19"]
    assert "2,285.2" in rows["sresnet19"]
    assert "92.9-97.3 / 70.9-83.9" in rows["sresnet19"]
    assert rows["sresnet19_w16_gs"].endswith("t2_cifar10, t2_cifar100")
    assert rows["svgg11_w8"].split()[1:] == ["0.15", "2.6", "4", "-", "-"]
    published = next(line for line in text.splitlines() if "TET " in line and "94.44" in line)
    assert "74.47" in published
    assert "arXiv 2202.11946" in published
    assert sum("arXiv 2202.11946" in line for line in text.splitlines()) == 2  # once, not for each twin
    assert "scaling: final_trace, causal_trace" in text
    assert "arXiv" not in printed(capsys, "list", "sresnet19*")


def test_list_says_what_each_checkpoint_was_measured_to_do(capsys):
    tables = printed(capsys, "list").split("\n\n")
    head, *lines = (re.split("  +", line) for line in tables[-1].splitlines())
    assert {row[0] for row in lines} == set(zoo.list_pretrained())
    best = dict(zip(head, lines[0], strict=True))
    told = names.measured()[best["checkpoint"]]
    assert best["checkpoint"] == max(names.measured(), key=lambda name: names.measured()[name]["top1"])
    found = read_json(names.BUNDLED / best["checkpoint"] / "result.json")
    assert best["top-1 (%)"] == f"{found['top1']:.2f}"
    # A row's spikes were counted on another machine, whose rounding moves some of a million.
    assert float(best["spikes/image"].replace(",", "")) == pytest.approx(found["spikes_per_image"], rel=1e-5)
    assert best["ms"] == f"{told['latency_ms']:.2f}"
    assert "CIFAR" in tables[-2]


def test_info(capsys):
    found = json.loads(printed(capsys, "info", "sresnet19_w16_gs.t2_cifar10", "--json"))
    assert found["model"] == "sresnet19_w16_gs"
    assert found["scaling"] == {"name": "channel", "alpha": 0.5, "rank": 1, "every": 3}  # that of the checkpoint
    assert json.loads(printed(capsys, "info", "sresnet19_w16_gs", "--json"))["scaling"] == GS
    assert found["kernel"].keys() >= {"cpu"}
    assert list(found["pretrained"]) == zoo.list_pretrained("sresnet19_w16_gs.*")
    assert found["references"] == []
    text = printed(capsys, "info", "svgg16_gs")
    assert "params:           14,724,042" in text
    assert "dense_operations:" in text
    assert "DIET-SNN" in text
    assert "arXiv 2008.03658" in text
    rule = json.loads(printed(capsys, "info", "window", "--json"))
    assert rule == {
        "scaling": "window",
        "description": PRESETS["window"].text,
        "scales": "the weight gradient of the whole window",
        "control": False,
    }
    assert "control:          True" in printed(capsys, "info", "permuted")
    assert all(describe(name)["description"].endswith(".") for name in zoo.list_scalings())


def test_references_are_well_formed():
    rows = read_json(ROOT / "zoo" / "models" / "references.json")["rows"]
    keys = {"model", "network", "method", "T", "cifar10", "cifar100", "strong_augmentation", "citation", "read_in"}
    for row in rows:
        assert row.keys() == keys
        assert zoo.is_model(row["model"])
        assert plain_name(row["model"]) == row["model"]
        values = [row[dataset] for dataset in ("cifar10", "cifar100") if row[dataset] is not None]
        assert values
        assert all(60 < value < 100 for value in values)
        assert all(row[dataset] is not None for dataset in row["strong_augmentation"])
        assert row["T"] is None or 1 <= row["T"] <= 10
        assert row["citation"]
        assert row["read_in"]
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert references("svgg16_gs") == references("svgg16") != []
    assert references("svgg11_w16") == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["info", "svgg12"], "unknown model or rule 'svgg12'; did you mean svgg"),
        (["info", "causal_trce"], "did you mean causal_trace"),
        (["info", "resnet18"], "unknown model or rule 'resnet18'"),
        (["info", "svgg11.nope"], "unknown tag 'nope': svgg11 has no"),
        (["list", "svgg*", "sreznet19"], "unknown model 'sreznet19'; did you mean sresnet19"),
        (["list", "--plugin", "absent.py"], "no such plugin: absent.py"),
        (["lst"], "list"),
        ([], "COMMAND"),
    ],
)
def test_bad_requests_are_named(argv, words):
    with pytest.raises(ZooError, match=words):
        main(argv)
