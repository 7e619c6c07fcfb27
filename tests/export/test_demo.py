"""The page on which networks spike: the same answers in a browser as in Python, and a page that keeps to itself."""

from __future__ import annotations

import functools
import gzip
import io
import json
import mimetypes
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL
import pytest
import torch
from conftest import ROOT
from pictures import make_stretched
from PIL import Image

import export
import zoo
from export.demo import folder as demo
from export.early_exit import exits
from recipes.predict import predict
from zoo.data import load_dataset, normalise
from zoo.data.images import Preparation
from zoo.errors import ZooError
from zoo.metrics import OperationCounter, energy
from zoo.names import split_name

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NETWORKS = ["max_resnet18_w32_gs.t4_cifar10", "svgg11_w16.t4_cifar10"]
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def synthetic(height: int = 61, width: int = 83) -> np.ndarray:
    """A ship of three colours on waves, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    pixels = np.stack([150 - 90 * (y > 0.6), 180 - 80 * (y > 0.6) + 8 * np.sin(40 * x + 20 * y), 225 - 60 * y], -1)
    pixels[(abs(x - 0.5) < 0.45 - 0.5 * abs(y - 0.5)) & (abs(y - 0.58) < 0.08)] = [140, 40, 30]
    pixels[(abs(x - 0.45) < 0.2) & (abs(y - 0.42) < 0.08)] = [240, 240, 235]
    return pixels.clip(0, 255).astype(np.uint8)


# --- the folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder, with two networks; the gate of their export is tested elsewhere."""
    if not shutil.which("npm"):
        pytest.skip("needs npm: apt-get install npm")
    out = tmp_path_factory.mktemp("demo")
    try:
        demo.add_runtime(out)
    except ZooError as error:
        if "cannot fetch" in str(error):
            pytest.skip(str(error))
        raise
    demo.build(out, NETWORKS, verify=False)
    return out


def about(folder: Path, name: str) -> dict[str, Any]:
    return next(a for a in json.loads((folder / "networks.json").read_text()) if a["name"] == name)


def outputs(folder: Path, name: str, pixels: torch.Tensor) -> dict[str, np.ndarray]:
    """All outputs of a network's file with its look inside, in Python's ONNX Runtime."""
    graph = (folder / f"{name}.onnx").read_bytes() + gzip.decompress((folder / f"{name}.look.gz").read_bytes())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    told = about(folder, name)
    names = [output.name for output in session.get_outputs()]
    x = normalise(pixels[None], told["mean"], told["std"]).numpy()
    return dict(zip(names, session.run(names, {"input": x}), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_of_the_metrics(folder: Path, name: str) -> None:
    pixels = torch.from_numpy(synthetic(32, 32)).permute(2, 0, 1)
    told, model = about(folder, name), zoo.load(name)
    with torch.no_grad(), OperationCounter(model) as counter:
        model(normalise(pixels[None], told["mean"], told["std"]))
    counted, numbers = counter.summary(), outputs(folder, name, pixels)["operations"]
    found = [0.0, 0.0]
    for number, of in zip(numbers, told["operations"], strict=True):
        found[of["multiply"]] += float(number) * len(of["steps"])
    assert found == pytest.approx([counted["Effective_ACs"], counted["Effective_MACs"]], rel=1e-4)  # spikes may flip
    own = energy(counted)
    assert own is not None
    assert np.dot(found, told["picojoules"]) * 1e-6 == pytest.approx(own["total"], rel=1e-4)


def test_the_network_itself_has_no_instruments(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / f"{NETWORKS[0]}.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits"]
    assert session.get_modelmeta().custom_metadata_map["architecture"] == "max_resnet18_w32_gs"


def test_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(command: list[str], **_: Any) -> None:
        Path(command[-1], "package.tgz").write_bytes(b"something else")

    monkeypatch.setattr(demo.subprocess, "run", pack)
    with pytest.raises(ZooError, match="not the pinned package"):
        demo.add_runtime(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_npm_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ZooError, match=r"npm, which is not here"):
        demo.add_runtime(tmp_path)


def test_networks_that_the_page_cannot_show_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.zoo, "load", lambda _: zoo.create_model("sresnet19_w16", encoding="latency"))
    with pytest.raises(ZooError, match="direct encoding"):
        demo.build(tmp_path / "out", ["latent"])
    assert not (tmp_path / "out").exists()


def test_of_two_networks_with_one_name_none_is_shown_as_the_other(tmp_path: Path) -> None:
    name = NETWORKS[-1]
    mine = zoo.load(name)
    assert demo.add_network(tmp_path, mine, verify=False)["top1"] is not None
    mine.fc.weight.data.mul_(2)
    assert demo.add_network(tmp_path, mine, verify=False)["top1"] is None  # that is the bundled one's
    zoo.save_checkpoint(tmp_path / "run", mine, tag=split_name(name)[1], data_cfg={})
    with pytest.raises(ZooError, match=f"two networks are called {name}"):
        demo.build(tmp_path / "out", [name, str(tmp_path / "run")])
    assert not (tmp_path / "out").exists()


# --- pictures


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js: apt-get install nodejs")
def test_pictures_are_prepared_as_predict_prepares_them(tmp_path: Path, interpolation: str) -> None:
    cfg = {"size": 32, "crop_pct": 0.875, "interpolation": interpolation}
    sizes = [(32, 32), (36, 36), (20, 29), (33, 32), (61, 83), (240, 135), (700, 333), (333, 700), (5, 5), (32, 36)]
    draw, given, expected = np.random.default_rng(0), [], []
    prepare = Preparation({**cfg, "input_size": (3, 32, 32), "crop_mode": "center"})
    for i, (height, width) in enumerate(sizes):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / f"{i}.png").write_bytes(png(pixels))
        expected.append(prepare(tmp_path / f"{i}.png").numpy())
        rgba = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
        given.append({"width": width, "height": height, "data": rgba.ravel().tolist()})
    (tmp_path / "given.json").write_text(json.dumps(given))
    code = f"""
        import {{readFileSync}} from "node:fs";
        import {{prepare}} from {json.dumps((ROOT / "export/demo/prepare.js").as_uri())};
        const given = JSON.parse(readFileSync("given.json"));
        console.log(JSON.stringify(given.map(picture => Array.from(prepare(picture, {json.dumps(cfg)})))));
    """
    command = ["node", "--no-warnings", "--input-type=module", "-e", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for size, found, own in zip(sizes, json.loads(done.stdout), expected, strict=True):
        difference = np.abs(np.reshape(found, own.shape) - own.astype(int))
        tall = size[0] > 2 * size[1]  # which Pillow scaled in another order before 13
        assert difference.max() <= (tall and int(PIL.__version__.split(".")[0]) < 13), size


# --- the page


class Visit:
    """A tab in which the page is open, and all that it asked for or complained of."""

    def __init__(self, browser: Any, url: str, size: dict[str, int], scheme: str) -> None:
        context = browser.new_context(viewport=size, color_scheme=scheme, permissions=["camera"])
        self.context, self.url, self.requests, self.complaints = context, url, [], []
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(90_000)  # of a machine that is busy
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)
        self.tab.wait_for_selector("body[data-timed]")

    def next(self) -> int:
        """The number that the next question to the network has."""
        return int(self.tab.get_attribute("body", "data-asked")) + 1

    def show(self, picture: bytes, kind: str = "image/png") -> dict[str, Any]:
        """What the page makes of a picture that is put into it."""
        number = self.next()
        self.tab.set_input_files("#file", {"name": "picture", "mimeType": kind, "buffer": picture})
        self.tab.wait_for_selector(f"body[data-answered='{number}']")
        return self.result()

    def result(self) -> dict[str, Any]:
        return self.tab.evaluate("""() => ({name: page.about.name, pixels: Array.from(page.result.pixels),
            logits: page.result.logits, spikes: page.result.spikes, energy: page.result.energy,
            maps: page.result.maps.map(map => map.reduce((a, b) => a + b, 0))})""")

    def take(self, place: int) -> None:
        """Takes one of the networks."""
        number = self.next()
        self.tab.click(f"#networks button >> nth={place}")
        self.tab.wait_for_selector(f"body[data-answered='{number}']")

    def kept_to_itself(self) -> None:
        """It asked for nothing but its own files, and complained of nothing."""
        assert self.requests
        assert [url for url in self.requests if not url.startswith((self.url, "data:", "blob:"))] == []
        assert self.complaints == []
        self.context.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The page behind a plain file server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `dev`")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    film = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *film])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def desktop(browser: Any, url: str) -> Iterator[Visit]:
    yield (visit := Visit(browser, url, DESKTOP, "light"))
    visit.kept_to_itself()


def check_same(visit: Visit, folder: Path, tmp_path: Path, picture: bytes) -> None:
    """Each network says of a picture in the browser what it says in Python."""
    (tmp_path / "picture.png").write_bytes(picture)
    for place, name in enumerate(NETWORKS):
        visit.take(place)
        found, told = visit.show(picture), about(folder, name)
        prepare = told["prepare"] | {"input_size": (3, 32, 32), "crop_mode": "center"}
        pixels = Preparation(prepare)(tmp_path / "picture.png")
        own = outputs(folder, name, pixels)
        assert found["name"] == name
        assert found["pixels"] == pixels.ravel().tolist()
        assert np.argmax(np.mean(found["logits"], 0)) == own["logits"].argmax()
        layers = [layer["name"] for layer in told["layers"]]
        spikes = np.array([own[f"spikes/{layer}"][0] for layer in layers])
        # In float32 sums differ by their order, so that at a threshold one neuron in many thousands decides otherwise.
        assert np.abs(np.array(found["spikes"]) - spikes).sum() <= 1e-3 * spikes.sum()
        assert found["maps"] == np.sum(found["spikes"], 1).tolist()
        assert np.allclose(found["logits"], own["step_logits"][0], atol=0.1)
        assert visit.tab.inner_text("#says span") == told["classes"][own["logits"].argmax()]


def test_same_classes_and_spikes_as_in_python(desktop: Visit, folder: Path, tmp_path: Path) -> None:
    check_same(desktop, folder, tmp_path, png(synthetic()))


@pytest.mark.slow
@pytest.mark.data
def test_same_classes_and_spikes_for_real_images(desktop: Visit, folder: Path, tmp_path: Path, data_root: str) -> None:
    for image in load_dataset("cifar10", data_root).test_images[:4]:
        check_same(desktop, folder, tmp_path, png(image.permute(1, 2, 0).numpy()))


@pytest.mark.slow
def test_stretched_pictures_have_the_classes_that_predict_names(desktop: Visit, tmp_path: Path) -> None:
    files = make_stretched(tmp_path / "stretched", 60)
    desktop.take(1)
    labels = [one["top"][0]["label"] for one in predict(zoo.load(NETWORKS[1]), files, top=1)]
    found = []
    for file in files:
        desktop.show(file.read_bytes(), mimetypes.guess_type(file)[0] or "")
        found.append(desktop.tab.inner_text("#says span"))
    assert found == labels


RUN = """async url => {
  const ort = await import("./ort.wasm.bundle.min.mjs");
  ort.env.wasm.numThreads = 1;
  const packed = (await fetch("ort-wasm-simd-threaded.wasm.gz")).body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(packed).arrayBuffer();
  const session = await ort.InferenceSession.create(new Uint8Array(await (await fetch(url)).arrayBuffer()));
  const x = Float32Array.from({length: 3072}, (_, i) => (i * 37 % 256) / 64 - 2);
  const logits = (await session.run({input: new ort.Tensor("float32", x, [1, 3, 32, 32])})).logits.data;
  return Array.from(logits);
}"""


@pytest.mark.slow
def test_functions_of_an_event_driven_file_run_in_the_browser(desktop: Visit, folder: Path) -> None:
    file = folder / "events.onnx"
    export.to_onnx(zoo.load(NETWORKS[1]), file, precision="int16", verify=False)
    x = ((np.arange(3072) * 37 % 256) / 64 - 2).astype(np.float32).reshape(1, 3, 32, 32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = desktop.tab.evaluate(RUN, file.name)
    assert np.allclose(found, session.run(["logits"], {"input": x})[0][0], atol=1e-5)


@pytest.mark.slow
def test_its_own_pictures_are_recognised(desktop: Visit) -> None:
    desktop.take(0)
    for button in desktop.tab.query_selector_all("#samples button"):
        number = desktop.next()
        button.click()
        desktop.tab.wait_for_selector(f"body[data-answered='{number}']")
        assert desktop.tab.inner_text("#says span") == button.get_attribute("title")


@pytest.mark.slow
def test_early_exit_is_marked_where_it_is_measured(desktop: Visit) -> None:
    desktop.take(0)
    logits = np.array([desktop.show(png(synthetic()))["logits"]], np.float32)
    marks = []
    for threshold in (50, 80, 90, 99):
        desktop.tab.fill("#sure", str(threshold))
        steps = desktop.tab.query_selector_all("#steps [role=columnheader]:not(:first-child)")
        marked = [t for t, head in enumerate(steps, 1) if "exit" in (head.get_attribute("class") or "")]
        expected = exits(logits, np.zeros(1, int), threshold / 100)["mean_steps"]
        assert marked == [expected] or (marked == [] and expected == len(steps))
        marks.append(marked)
    assert len({str(mark) for mark in marks}) > 1  # or nothing was compared
    desktop.tab.fill("#sure", "90")


@pytest.mark.slow
def test_draws(desktop: Visit) -> None:
    number = desktop.next()
    desktop.tab.click("[data-source=draw]")
    desktop.tab.wait_for_selector(f"body[data-answered='{number}']")
    before = desktop.result()["pixels"]
    box = desktop.tab.locator("#board").bounding_box()
    desktop.tab.mouse.move(box["x"] + 40, box["y"] + 90)
    desktop.tab.mouse.down()
    desktop.tab.mouse.move(box["x"] + 200, box["y"] + 120, steps=5)
    desktop.tab.mouse.up()
    asked = desktop.tab.get_attribute("body", "data-asked")
    assert int(asked or 0) > number
    desktop.tab.wait_for_selector(f"body[data-answered='{asked}']")
    assert desktop.result()["pixels"] != before


def until(tab: Any, done: Callable[[], bool]) -> None:
    """Waits for something, ten seconds at most."""
    for _ in range(200):
        if done():
            return
        tab.wait_for_timeout(50)
    pytest.fail("it does not come")


@pytest.mark.slow
def test_films(desktop: Visit) -> None:
    begin = desktop.next()
    desktop.tab.click("[data-source=film]")
    until(desktop.tab, lambda: int(desktop.tab.get_attribute("body", "data-answered")) > begin + 2)
    assert desktop.tab.evaluate("page.picture.width") >= 320
    first = desktop.tab.evaluate_handle("document.getElementById('video').srcObject")
    desktop.tab.click("[data-source=film]")  # once more
    until(desktop.tab, lambda: first.evaluate("stream => document.getElementById('video').srcObject !== stream"))
    assert first.evaluate("stream => stream.getTracks()[0].readyState") == "ended"
    desktop.tab.click("[data-source=drop]")
    assert desktop.tab.evaluate("document.getElementById('video').srcObject.getTracks()[0].readyState") == "ended"
    assert desktop.tab.evaluate("page.picture === page.dropped")
    until(desktop.tab, lambda: desktop.tab.evaluate("document.body.dataset.answered === document.body.dataset.asked"))


@pytest.mark.slow
def test_times_both_networks(desktop: Visit) -> None:
    number = desktop.next()
    desktop.tab.click("#samples button >> nth=1")
    desktop.tab.wait_for_selector(f"body[data-timed='{number}']")
    times = desktop.tab.evaluate("page.result.times")
    assert times["plain"] > 0
    assert times["twin"] > 0
    assert "ms" in desktop.tab.inner_text("#time")


@pytest.mark.slow
def test_what_is_no_picture_is_said(desktop: Visit) -> None:
    desktop.tab.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    desktop.tab.wait_for_selector("#status.failed")
    assert "no.png is no picture" in desktop.tab.inner_text("#status")


@pytest.mark.slow
def test_maps_move_and_stop(desktop: Visit) -> None:
    tab = desktop.tab
    tab.click("#samples button >> nth=0")
    tab.click("#player button >> nth=2")
    hash_of = "() => document.querySelector('#channels canvas').toDataURL()"
    tab.wait_for_timeout(200)
    first = tab.evaluate(hash_of)
    tab.click("#player button >> nth=1")
    tab.wait_for_timeout(200)
    assert tab.evaluate(hash_of) != first
    tab.click("#play")
    shown = set()
    for _ in range(12):
        shown.add(tab.evaluate(hash_of))
        tab.wait_for_timeout(60)
    assert len(shown) > 3
    tab.evaluate("page.step = 7")  # of a network of more steps
    desktop.take(1)
    assert tab.evaluate("page.step") < 4
    desktop.take(0)


@pytest.mark.slow
def test_fits_a_phone_in_the_dark(browser: Any, url: str) -> None:
    visit = Visit(browser, f"{url}#{NETWORKS[1]}", PHONE, "dark")
    assert visit.result()["name"] == NETWORKS[1]  # as the board links to it
    visit.url = url
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert visit.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 13, 18)"
    visit.kept_to_itself()
