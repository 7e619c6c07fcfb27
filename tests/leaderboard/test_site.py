"""The page and the picture: what they hold, and that a browser sorts the page."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from http.server import ThreadingHTTPServer

import pytest
from conftest import ROOT

from leaderboard.__main__ import main
from leaderboard.charts import COSTS, SPIKES, latency_panel, latency_picture, panel, picture
from leaderboard.page import page
from leaderboard.references import published
from leaderboard.rows import rows
from leaderboard.store import load_results
from zoo.errors import ZooError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = """=cmd("x")</script><img src=x onerror=hacked=1><script>hacked=1</script>'"`{{7*7}}"""


@pytest.fixture(scope="module")
def board():
    """The rows of the board, and one whose texts attack the page."""
    table = rows(load_results(ROOT / "leaderboard/results"))
    hostile = replace(
        table[0], model=EVIL, tag="", tier="checkpoint", scaling=f"+{EVIL}", top1=70.0, spikes_per_image=3e5,
        graphs=(),
    )  # fmt: skip
    graph = table[0].graphs[0]
    event = replace(graph, precision="int16", p50_ms=3.25, cpu=EVIL)
    timed = replace(table[1], graphs=(replace(graph, p50_ms=10.5, cpu=EVIL), event))
    return [replace(row, comparison="alike", recipe={EVIL: EVIL}) for row in (hostile, table[0])] + [timed, *table[2:]]


@pytest.fixture(scope="module")
def site(board, tmp_path_factory):
    """The built page."""
    claim = replace(published()[0], model=EVIL, published_citation=EVIL)
    file = tmp_path_factory.mktemp("site") / "index.html"
    file.write_text(page([*board, *published(), claim]), encoding="utf-8")
    return file


def test_the_page_holds_every_row_and_points_nowhere(site, board):
    text = site.read_text(encoding="utf-8")
    assert all(f">{row.name}<" in text for row in board if row.model != EVIL)
    assert EVIL not in text
    assert text.count("<script>") == 1
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=(?!x )|href=\"", text)
    assert text.count("<svg xmlns") >= len(COSTS) + 1
    assert ">Event p50 (ms)<" in text
    assert "Trained alike: alike, cifar10" in text
    assert "Published by others" in text


def test_serve_shows_the_page_to_this_machine(monkeypatch, capsys):
    def asked(server):
        assert server.server_address[0] == "127.0.0.1"
        threading.Thread(target=server.handle_request, daemon=True).start()
        with urllib.request.urlopen(f"http://localhost:{server.server_port}/", timeout=30) as answer:
            assert "<title>snn-zoo leaderboard</title>" in answer.read().decode()

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", asked)
    main(["serve", "--port", "0"])
    assert re.search(r"http://localhost:\d+/ \(Ctrl-C", capsys.readouterr().out)


def test_checkpoints_of_the_zoo_link_to_the_page_that_shows_them_spike(board):
    text = page(board, "demo/?a=1&b=2")
    links = re.findall(r'<a href="demo/\?a=1&amp;b=2#([^"]+)">', text)
    assert set(links) == {row.name for row in board if row.model != EVIL and row.dataset != "digits"}


def test_page_of_an_empty_board():
    assert "No results yet." in page([])


def test_a_browser_sorts_the_page_and_runs_nothing_else(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `dev`")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    column = """() => [...document.querySelector("table").tBodies[0].rows].map(row => row.cells[2].innerText)"""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        requests = []
        tab = browser.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(site.as_uri())
        for falling in (True, False):
            tab.click("th:has-text('Spikes per image') >> nth=0")
            counts = [float(text.replace(",", "")) for text in tab.evaluate(column)]
            assert counts == sorted(counts, reverse=falling)
        assert tab.evaluate("typeof hacked") == "undefined"
        assert requests == [site.as_uri()]
        browser.close()


def test_the_picture_names_every_network_and_no_name_covers_another(board):
    values = [(405e3, 91.02), (206e3, 89.74), (95.5e3, 75.81), (96.8e3, 75.78), (0.0, 50.0)]
    table = [
        replace(board[-1], dataset=data, model=f"svgg{i}", tag=f"t2_{data}", spikes_per_image=x, top1=y, scaling=None)
        for data in ("cifar10", "cifar100")
        for i, (x, y) in zip((5, 9, 11, 13, 16), values, strict=True)
    ]
    twin = replace(table[0], model="svgg5_gs", spikes_per_image=300e3, scaling="channel", top1_std=0.5)
    svg = picture([*table, twin])
    ElementTree.fromstring(svg)
    assert svg == picture([*table, twin])
    assert picture([table[4]]) == ""  # no place on a log axis
    for part, count in zip(svg.split("<svg x=")[1:], (5, 4), strict=True):
        points, names = (part.split(f"role-mark {mark}")[1].split("</g>")[0] for mark in ("points", "layer_3"))
        marks = [tuple(map(float, spot)) for spot in re.findall(r"translate\(([\d.]+),([\d.]+)\)", points)]
        texts = re.findall(r"translate\(([\d.]+),([\d.]+)\)[^>]*>([^<]*)</text>", names)
        spans = [(float(x), float(x) + 6 * len(name), float(y)) for x, y, name in texts]
        assert len(spans) == len(marks) == count
        for i, (left, right, y) in enumerate(spans):
            assert not [1 for start, end, z in spans[:i] if start < right and left < end and abs(y - z) < 11]
            assert not [1 for x, z in marks if left < x < right and abs(y - z) < 5]
        assert len(re.findall(r'd="M[\d.,]+L[\d.,]+"[^>]* stroke-dasharray', part)) == (count == 5)  # twins are joined


@pytest.mark.parametrize(
    ("spikes", "top1"), [([1e-3, 1e9], [10.0, 99.0]), ([1.0, 1.0], [0.0, 0.0]), ([1.0, 1.0], [93.01, 93.02])]
)
def test_marks_lie_inside_the_axes(board, spikes, top1):
    table = [replace(board[-1], spikes_per_image=s, top1=t) for s, t in zip(spikes, top1, strict=True)]
    chart = panel(SPIKES, table, "x")
    assert chart
    (x, y) = (chart["layer"][2]["encoding"][axis]["scale"]["domain"] for axis in "xy")
    assert x[0] < min(spikes) <= max(spikes) < x[1]
    assert y[0] < min(top1) <= max(top1) < y[1]
    chart = panel(SPIKES, [replace(row, runs=3, top1_std=2.0) for row in table], "x")
    low, high = chart["layer"][2]["encoding"]["y"]["scale"]["domain"]
    assert low < min(top1) - 2 < max(top1) + 2 < high


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "leaderboard.page", None)
    with pytest.raises(ZooError, match=r"pip install -e '\.\[site\]'"):
        main(["site", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_row_without_a_cost_has_no_point(board):
    rows = [replace(board[1], graphs=(), energy_uj=None, spikes_per_image=0.0)]
    shown = [cost.title for cost in COSTS if panel(cost, rows, "x")]
    assert shown == ["Effective ACs per image", "Parameters"]


def test_latencies_are_drawn_where_event_driven_files_were_timed(board):
    timed = board[2]
    board = [row for row in board if row is timed or not row.graph("int16")]
    specification = latency_panel(SPIKES, board)
    assert specification
    points = specification["data"]["values"]
    assert [(p["network"], p["file"], p["ms"]) for p in points] == [
        (timed.path, "float32", 10.5),
        (timed.path, "event-driven", 3.25),
    ]
    assert points[0]["cost"] == timed.spikes_per_image
    ElementTree.fromstring(latency_picture(board))
    # Files that were timed on another processor do not compare.
    other = replace(timed, graphs=(replace(timed.graphs[0], cpu="another"), timed.graphs[1]))
    assert len(latency_panel(SPIKES, [other])["data"]["values"]) == 1
    assert latency_picture([row for row in board if row is not timed]) == ""
