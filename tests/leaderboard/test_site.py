"""The page: what it holds, and what it does in a browser; built once, looked at in one headless Chromium."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from leaderboard.__main__ import main, server
from leaderboard.charts import COSTS, paired, picture, points_of, trade_off
from leaderboard.page import _chain, _graphs, network, page, studies
from leaderboard.references import published
from leaderboard.row import Graph, Row
from leaderboard.rows import rows
from leaderboard.store import load_results
from recipes.differences import Difference, Interval
from recipes.lineage import Ancestor
from zoo.errors import ZooError
from zoo.hub.client import Published

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = """=cmd("x")</script><img src=x onerror=hacked=1><script>hacked=1</script>'"`{{7*7}}"""
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def graph(precision: str, **changes: Any) -> Graph:
    values = {"layout": "flat", "images": 10_000, "top1": 90.0, "spikes_per_image": 1e5, "bytes": 10**6, "p50_ms": 2.0}
    values |= {"provider": "CPUExecutionProvider", "cpu": "Intel Xeon", "spikes_differ": None, "file": "o.json"}
    return Graph(precision, **values | changes)


def measured() -> list[Row]:
    """The rows of the board, with costs where theirs are older than these; and one whose texts attack the page."""
    table = rows(load_results(ROOT / "leaderboard/results"))
    costs = [
        replace(
            row,
            effective_acs=(row.spikes_per_image or 0) * 40,
            effective_macs=1.7e6,
            energy_uj=(row.spikes_per_image or 0) / 1e4,
            top1_std=0.2 if i % 2 else None,
            graphs=(*row.graphs, graph("int8", top1=row.top1 + 0.1, p50_ms=1.4)),
        )
        for i, row in enumerate(table)
        if row.dataset != "digits"
    ]
    origin, result = costs[0].evidence[0]
    evidence = ((origin + EVIL, result | {"command": EVIL, "note": EVIL}),)
    hostile = replace(
        costs[0], model=EVIL, tag="", tier="checkpoint", scaling=f"+{EVIL}", spikes_per_layer={EVIL: 1.0}, top1=70.0,
        plugins=((EVIL, "a" * 64),), evidence=evidence, graphs=(), spikes_per_image=3e5, recipe={EVIL: EVIL},
    )  # fmt: skip
    digits = [row for row in table if row.dataset == "digits"]
    alike = [replace(row, comparison="alike") for row in costs[:2]]  # side by side
    return [*alike, *costs[2:], replace(hostile, comparison="alike"), *digits]


@pytest.fixture(scope="module")
def board() -> list[Row]:
    return measured()


@pytest.fixture(scope="module")
def site(board: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built page."""
    claim = replace(published()[0], model=EVIL, published_citation=EVIL)
    file = tmp_path_factory.mktemp("site") / "index.html"
    file.write_text(page([*board, *published(), claim]), encoding="utf-8")
    return file


class Visit:
    """A tab of the browser in which the page is open, and all that it asked for or complained of."""

    def __init__(self, browser: Any, site: Path, size: dict[str, int], scheme: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.url = site.as_uri()
        self.tab = browser.new_page(viewport=size, color_scheme=scheme)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(self.url)
        self.tab.wait_for_selector("html[data-ready]")

    def kept_to_itself(self) -> None:
        """It asked for nothing but the page, and complained of nothing."""
        assert {url.split(":")[0] for url in self.requests} <= {"file", "blob"}
        assert {url.split("#")[0] for url in self.requests if url.startswith("file")} == {self.url}
        assert self.complaints == []

    def go(self, place: str) -> None:
        """To a section, and until its charts are drawn."""
        self.tab.evaluate("place => location.hash = place", place)
        self.arrived(place)

    def arrived(self, place: str) -> None:
        """Waits until a section is the one that is shown, and drawn."""
        shown = "place => document.querySelector('main > section:not([hidden])').id === (place || 'board')"
        self.tab.wait_for_function(shown, arg=place)
        self.drawn()

    def choose(self, dataset: str) -> None:
        self.tab.select_option("#dataset", dataset)
        self.drawn()

    def drawn(self) -> None:
        self.tab.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(c => !c.offsetParent || c.querySelector('svg .root'))"
        )

    def toggle(self, title: str) -> None:
        """Shows a column, or hides it."""
        self.tab.click("button:has-text('Columns')")
        self.tab.click(f".dt-button-collection >> text={title}")
        self.tab.keyboard.press("Escape")

    def titles(self) -> list[str]:
        """Of the columns that are shown."""
        return self.tab.evaluate(
            "[...document.querySelectorAll('#networks thead th')].map(head => head.innerText.trim())"
        )

    def column(self, title: str) -> list[str]:
        """The texts of a column, as it is shown."""
        script = """title => {
            const heads = [...document.querySelectorAll("#networks thead th")];
            const place = heads.findIndex(head => head.innerText.trim() === title);
            return [...document.querySelectorAll("#networks tbody tr")].map(row => row.cells[place].innerText.trim());
        }"""
        return self.tab.evaluate(script, title)

    def overlaps(self) -> list[list[str]]:
        """Pairs of labels of one chart that are shown and cover each other."""
        return self.tab.evaluate("""() => [...document.querySelectorAll(".chart svg")].flatMap(chart => {
            const shown = [...chart.querySelectorAll(".labels text, .role-axis-label text, .names_marks text")]
                .filter(text => getComputedStyle(text).opacity !== "0" && text.textContent)
                .map(text => [text.textContent, text.getBoundingClientRect()]);
            return shown.flatMap(([a, p], i) => shown.slice(i + 1)
                .filter(([b, q]) => p.left < q.right && q.left < p.right)
                .filter(([b, q]) => p.top + 2 < q.bottom && q.top + 2 < p.bottom)
                .map(([b]) => [a, b]));
        })""")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `dev`")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def desktop(browser: Any, site: Path) -> Iterator[Visit]:
    yield (visit := Visit(browser, site, DESKTOP, "light"))
    visit.kept_to_itself()


@pytest.fixture(scope="module")
def phone(browser: Any, site: Path) -> Iterator[Visit]:
    yield (visit := Visit(browser, site, PHONE, "dark"))
    visit.kept_to_itself()


# --- in the browser


def test_the_table_sorts(desktop: Visit, board: list[Row]) -> None:
    desktop.go("")
    desktop.choose("cifar10")
    spikes = sorted(float(row.spikes_per_image or 0) for row in board if row.dataset == "cifar10")
    for head, order, expected in (
        ("Spikes per image", "descending", [f"{count:,.0f}" for count in reversed(spikes)]),
        ("Spikes per image", "ascending", [f"{count:,.0f}" for count in spikes]),
        ("#", "ascending", [str(rank) for rank in range(1, len(spikes) + 1)]),
    ):
        desktop.tab.click(f"#networks th:has-text('{head}')")
        desktop.tab.wait_for_selector(f"#networks th[aria-sort={order}]:has-text('{head}')")
        assert desktop.column(head) == expected


def test_the_table_filters(desktop: Visit, board: list[Row]) -> None:
    desktop.go("")
    for dataset in ("cifar100", "digits", ""):
        desktop.choose(dataset)
        expected = sorted(row.name for row in board if dataset in ("", row.dataset))
        assert sorted(desktop.column("Model and tag")) == expected
    desktop.tab.select_option("#tier", "checkpoint")
    assert len(desktop.column("Model and tag")) == 1
    desktop.tab.select_option("#tier", "")
    desktop.tab.fill(".dt-search input", "w16_gs.t2_digits")
    assert desktop.column("Model and tag") == ["sresnet19_w16_gs.t2_digits"]
    desktop.tab.fill(".dt-search input", "")


def test_columns_are_chosen(desktop: Visit) -> None:
    desktop.go("")
    desktop.choose("cifar10")
    before = desktop.titles()
    assert "Test-set reads" not in before
    desktop.toggle("Test-set reads")
    assert "Test-set reads" in desktop.titles()
    desktop.toggle("Test-set reads")
    assert desktop.titles() == before


def test_no_column_is_empty(desktop: Visit) -> None:
    desktop.go("")
    for dataset in ("digits", "cifar10", "cifar100", ""):
        desktop.choose(dataset)
        titles = desktop.titles()
        assert len(titles) > 6
        assert [title for title in titles if set(desktop.column(title)) <= {"", "—"}] == []


def test_csv_is_what_is_shown(desktop: Visit) -> None:
    desktop.go("")
    desktop.choose("cifar10")
    with desktop.tab.expect_download() as download:
        desktop.tab.click("#networks_wrapper button:has-text('CSV')")
    head, *lines = Path(download.value.path()).read_text(encoding="utf-8-sig").strip().splitlines()
    assert '"Top-1 (%)"' in head
    assert "Test-set reads" not in head
    assert len(lines) == len(desktop.column("#"))


def test_every_plot_has_a_point_for_every_row(desktop: Visit, board: list[Row]) -> None:
    desktop.go("")
    for dataset in ("cifar10", "cifar100", "digits"):
        desktop.choose(dataset)
        counts = desktop.tab.evaluate("""() => [...document.querySelectorAll("#board .chart")]
            .filter(chart => chart.offsetParent)
            .map(chart => [".role-title-text", ".points_marks path"].map(name => [...chart.querySelectorAll(name)]))
            .map(([[title], points]) => [title.textContent, points.length])""")
        table = [row for row in board if row.dataset == dataset]
        expected = {f"Top-1 (%) against {m.short}": len(points_of(m, table)) for m in COSTS.values()}
        assert dict(counts) == {title: count for title, count in expected.items() if count}
        assert expected["Top-1 (%) against spikes per image"] == len(table)


def test_published_results_are_a_layer(desktop: Visit) -> None:
    desktop.go("")
    desktop.choose("cifar10")
    marks = "() => document.querySelectorAll('#board .plots:not([hidden]) .claims_marks path').length"
    assert desktop.tab.evaluate(marks) == 0
    desktop.tab.check("#show-published")
    desktop.tab.wait_for_function(f"({marks})() > 20")
    assert desktop.overlaps() == []
    desktop.tab.uncheck("#show-published")
    desktop.tab.wait_for_function(f"({marks})() === 0")


def test_a_network_has_a_page(desktop: Visit, board: list[Row]) -> None:
    row = board[0]
    desktop.go("")
    desktop.choose(row.dataset)
    desktop.tab.click(f"#networks a[href='#{row.path}']")
    desktop.arrived(row.path)
    assert desktop.tab.title() == row.name
    shown = desktop.tab.locator("main > section:not([hidden])")
    assert shown.count() == 1
    titles = shown.locator(".role-title-text").all_text_contents()
    assert titles == ["Spikes by layer", "Spikes by time step", "Training loss", "Top-1 (%) while it trains"]
    text = shown.inner_text()
    assert f'model = zoo.load("{row.name}")' in text
    for part in ("In ONNX Runtime", "int8", "Model card", "Recipe", "@misc{snnzoo", "@misc{park2023gradient"):
        assert part in text
    desktop.tab.click("nav a:has-text('Networks')")
    desktop.arrived("")
    assert desktop.tab.title() == "snn-zoo leaderboard"


@pytest.mark.parametrize("visit", ["desktop", "phone"])
def test_no_label_covers_another_and_nothing_leaves_the_page(
    visit: str, board: list[Row], request: pytest.FixtureRequest
) -> None:
    seen: Visit = request.getfixturevalue(visit)
    seen.go("")
    seen.choose("")
    assert seen.overlaps() == []
    labels = seen.tab.evaluate("document.querySelectorAll('.labels text:not([opacity=\"0\"])').length")
    assert labels > len(board)  # of several plots
    for place in ("gradient-scaling", "published", board[0].path, next(row.path for row in board if EVIL in row.path)):
        seen.go(place)
        assert seen.overlaps() == []
        assert seen.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    seen.kept_to_itself()


def test_accuracy_is_in_sight_on_a_phone(phone: Visit, board: list[Row]) -> None:
    phone.go("")
    phone.choose("cifar10")
    boxes = phone.tab.evaluate("""() => [...document.querySelectorAll("#networks tbody tr")].map(row => {
        const cell = [...row.cells].find(cell => /^\\d\\d\\.\\d\\d/.test(cell.innerText)).getBoundingClientRect();
        return [cell.left, cell.right, cell.bottom];
    })""")
    assert len(boxes) == sum(row.dataset == "cifar10" for row in board)
    assert all(0 <= left < right <= PHONE["width"] and bottom <= PHONE["height"] for left, right, bottom in boxes[:4])


def test_the_colours_change(desktop: Visit) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = desktop.tab.evaluate(colour)
    desktop.tab.click("#theme")
    dark = desktop.tab.evaluate(colour)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(18, 22, 27)")
    desktop.tab.click("#theme")


def test_texts_of_files_are_texts(desktop: Visit, board: list[Row]) -> None:
    desktop.go("")
    desktop.choose("cifar10")
    assert [name for name in desktop.column("Model and tag") if EVIL in name]
    desktop.go(next(row.path for row in board if EVIL in row.path))
    assert desktop.tab.title() == EVIL
    desktop.go("published")
    assert desktop.tab.locator(f"#claims td:has-text({EVIL!r})").count() or EVIL in desktop.tab.inner_text("#claims")
    assert desktop.tab.evaluate("typeof hacked") == "undefined"
    assert desktop.tab.evaluate("document.querySelectorAll('img').length") == 0


# --- without a browser


def test_page_carries_all_and_points_nowhere(site: Path) -> None:
    text = site.read_text(encoding="utf-8")
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=(?!x )|href=\"(?!#)", markup)
    assert EVIL not in text
    assert len(re.findall(r"<script(?! type=\"application/json\")[^>]*>", text)) == 3
    assert "default-src 'none'" in text


def test_page_of_an_empty_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaderboard.page.studies", list)
    assert "No results yet." in page([])


def test_the_front_is_what_nothing_cheaper_beats(board: list[Row]) -> None:
    values = [(300.0, 80.0), (100.0, 70.0), (200.0, 70.0), (100.0, 60.0), (400.0, 79.0), (500.0, 81.0)]
    table = [replace(board[0], spikes_per_image=cost, top1=top1) for cost, top1 in values]
    points = points_of(COSTS["spikes"], [*table, replace(board[0], spikes_per_image=0.0)])
    assert [(p["cost"], p["top1"]) for p in points if p["front"]] == [(300.0, 80.0), (100.0, 70.0), (500.0, 81.0)]
    assert len(points) == 6  # what never spikes has no place on a log axis
    assert trade_off(COSTS["energy"], [replace(board[0], energy_uj=None)], published()) is None


def test_the_front_of_latencies_is_that_of_one_processor(board: list[Row]) -> None:
    row = replace(board[0], graphs=tuple(graph("fp32", top1=top1, p50_ms=ms, cpu=cpu) for top1, ms, cpu in [
        (80.0, 9.0, "A"), (70.0, 2.0, "A"), (79.0, 1.0, "B"), (90.0, 8.0, "B"), (60.0, 5.0, "A"),
    ]))  # fmt: skip
    points = points_of(COSTS["latency"], [row])
    assert [(p["top1"], p["cpu"]) for p in points if p["front"]] == [(80.0, "A"), (70.0, "A")]
    assert "processor" in json.dumps(trade_off(COSTS["latency"], [row], []))


def test_the_picture_names_every_network_and_no_name_covers_another(board: list[Row]) -> None:
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
    assert "var(--" not in svg
    assert picture([table[4]]) == ""  # no place on a log axis
    for panel, count in zip(svg.split("<svg x=")[1:], (5, 4), strict=True):
        points, names = (panel.split(f"role-mark {mark}")[1].split("</g>")[0] for mark in ("points", "layer_3"))
        marks = [tuple(map(float, spot)) for spot in re.findall(r"translate\(([\d.]+),([\d.]+)\)", points)]
        texts = re.findall(r"translate\(([\d.]+),([\d.]+)\)[^>]*>([^<]*)</text>", names)
        spans = [(float(x), float(x) + 6 * len(name), float(y)) for x, y, name in texts]
        assert len(spans) == len(marks) == count
        for i, (left, right, y) in enumerate(spans):
            assert not [1 for start, end, z in spans[:i] if start < right and left < end and abs(y - z) < 11]
            assert not [1 for x, z in marks if left < x < right and abs(y - z) < 5]
        assert len(re.findall(r'd="M[\d.,]+L[\d.,]+"[^>]* stroke-dasharray', panel)) == (count == 5)  # twins are joined


@pytest.mark.parametrize("spikes", [[1e-3, 1e9], [1.0, 1.0]])
@pytest.mark.parametrize("top1", [[0.0, 0.0], [10.0, 99.0], [93.01, 93.02]])
def test_marks_lie_inside_the_axes(board: list[Row], spikes: list[float], top1: list[float]) -> None:
    table = [replace(board[-1], spikes_per_image=s, top1=t) for s, t in zip(spikes, top1, strict=True)]
    chart = trade_off(COSTS["spikes"], table, picture="x")
    assert chart
    (x, y) = (chart["layer"][2]["encoding"][axis]["scale"]["domain"] for axis in "xy")
    assert x[0] < min(spikes) <= max(spikes) < x[1]
    assert y[0] < min(top1) <= max(top1) < y[1]


def test_a_graph_is_a_point_of_its_own(board: list[Row]) -> None:
    row = replace(board[0], top1_std=0.5, graphs=(graph("fp32", top1=board[0].top1), graph("int8", layout="step")))
    plain, int8 = points_of(COSTS["latency"], [row])
    assert (plain["form"], int8["form"]) == ("", "int8 step")
    assert plain["high"] - plain["low"] == pytest.approx(1.0)
    assert int8["high"] == int8["low"] == 90.0


def test_the_tables_of_a_network_say_megabytes_and_hours(board: list[Row]) -> None:
    near, far = ("near", "a" * 64, 38, 5400.0, "b" * 64), ("far", "c" * 64, None, None, None)
    ancestors = tuple(Ancestor(**dict(zip(Ancestor.model_fields, a, strict=True))) for a in (near, far))
    int8 = graph("int8", bytes=2_500_000, spikes_differ=1234, images=None)
    row = replace(board[0], started_from=ancestors, graphs=(int8,))
    assert _graphs(row) == [["int8", "flat", "90.00", "—", "100,000", "1,234", "2.50", "2.00", "CPUExecutionProvider"]]
    assert _chain(row) == [["far", "—", "—", "—", "c" * 12], ["near", "38", "1.5", "b" * 12, "a" * 12]]


def test_spikes_are_shown_from_the_first_step_on(board: list[Row]) -> None:
    row = replace(board[-1], model="mine", spikes_per_layer={"a": 400.0, "b": 100.0}, spikes_per_step=(300.0, 200.0))
    layers, steps = (chart["data"]["values"] for chart in network(row).charts)
    assert layers == [{"layer": "a", "spikes": 400.0}, {"layer": "b", "spikes": 100.0}]
    assert steps == [{"step": 1, "spikes": 300.0}, {"step": 2, "spikes": 200.0}]


def test_a_network_that_is_not_bundled(board: list[Row]) -> None:
    row = replace(board[-1], model="mine", recipe=None)
    found = network(row)
    assert (found.recipe, found.card) == ("", "")
    assert 'zoo.load("RUN_FOLDER")' in found.load
    assert "title = {{mine.t2\\_digits}, a spiking" in found.citation
    assert "park2023" not in network(replace(row, scaling=None)).citation


def test_a_card_loads_the_network_from_where_it_is(board: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    row = board[0]
    assert f"zoo.load(&quot;{row.name}&quot;)" in network(row).card
    where = {row.name: Published("org/here", "0" * 40, "0" * 64)}
    monkeypatch.setattr("leaderboard.page.on_hub", lambda: where)
    assert "zoo.load(&quot;hf-hub:org/here&quot;)" in network(row).card


def test_studies_are_those_that_compare_rules() -> None:
    found = {study.name: study for study in studies()}
    assert "cpu_longer_cifar10" in found
    assert not {"flagship_form", "gpu"} & found.keys()  # one rule in all arms; no results
    study = found["cpu_longer_cifar10"]
    assert study.differences[0][:3] == ("channel_0.5", "plain", 5)
    assert "20,000 images of cifar10, 12 epochs" in study.setting


def test_an_interval_reaches_as_far_to_both_sides() -> None:
    several = Difference("a", "plain", 3, 0, Interval(1.0, 0.25, 0.01), None, 0.01, None)
    one = Difference("b", "plain", 1, 0, Interval(-2.0, None), None, None, None)
    chart = paired([several, one])
    (spans,) = (layer["data"]["values"] for layer in chart["layer"] if "x2" in layer["encoding"])
    assert spans == [
        {"contrast": "a minus plain", "mean": 1.0, "low": 0.75, "high": 1.25, "verdict": "higher", "pairs": 3},
        {"contrast": "b minus plain", "mean": -2.0, "low": -2.0, "high": -2.0, "verdict": "one pair", "pairs": 1},
    ]


def test_serve_answers_on_this_machine_alone() -> None:
    with server("<p>ä</p>", 0) as serving:
        assert serving.server_address[0] == "127.0.0.1"
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        for path, status, text in (("/", 200, "<p>ä</p>"), ("/etc/passwd", 404, None)):
            connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == status
            assert text in (answer.read().decode(), None)
        with pytest.raises(ZooError, match="cannot serve on port"), server("", serving.server_port):
            pass
        serving.shutdown()
    with pytest.raises(ZooError, match="cannot serve on port 99999"), server("", 99999):
        pass


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "leaderboard.page", None)
    with pytest.raises(ZooError, match=r"pip install -e '\.\[site\]'"):
        main(["site", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZooError, match="no such folder"):
        main(["site", "--results", str(tmp_path / "none")])


def test_site_is_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("leaderboard.page.page", lambda rows: f"{len(rows)} rows")
    main(["site", "--out", str(tmp_path / "new")])
    assert re.fullmatch(r"\d+ rows", (tmp_path / "new/index.html").read_text())
    assert capsys.readouterr().out == f"{tmp_path}/new/index.html\n"
