"""Checkpoints that mean harm: refused with one ZooError, nothing executed, nothing written elsewhere, little memory."""

import io
import json
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import assert_one_error
from hub_client import NAME, TRY, loopback, outcomes
from PIL import Image

import zoo
from recipes.predict import predict
from recipes.validate import validate
from zoo.checkpoint.weights import WithinMemory, WithoutMemory
from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.hub.client import check_name
from zoo.names import BUNDLED

GIB = 2**30


class Bomb:
    """A pickle that, when loaded, leaves a file behind."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.fixture
def mark(tmp_path):
    """The file that must never appear."""
    yield tmp_path / "it-ran"
    assert not (tmp_path / "it-ran").exists()


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(BUNDLED / NAME, tmp_path / "net")
    return tmp_path / "net"


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def pin(folder, data, **changes):
    """Put these weights there, with a config.json that vouches for them, as somebody who means harm would."""
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(config_of(folder) | {"weights_sha256": sha256_of(data)} | changes))


def tensors_of(folder):
    # Not load_file, which maps the file that tests overwrite into memory.
    return safetensors.torch.load((folder / "model.safetensors").read_bytes())


def refused(folder, words, timm_too=True):
    """By every way to load a directory; timm reads config.json by itself, and may fail there with its own error."""
    for load in (
        zoo.load_checkpoint,
        lambda path: zoo.create_model(f"local-dir:{path}"),
        lambda path: timm.create_model(f"local-dir:{path}", pretrained=True),
    )[: 3 if timm_too else 2]:
        with pytest.raises(ZooError, match=words) as caught:
            load(folder)
        assert len(str(caught.value)) < 1000


def pickles(mark):
    zipped = io.BytesIO()
    torch.save({"fc.weight": Bomb(mark)}, zipped)
    yield "torch.save's zip", zipped.getvalue()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"protocol {protocol}", pickle.dumps(Bomb(mark), protocol)
    yield "behind a plausible header", struct.pack("<Q", 32) + pickle.dumps(Bomb(mark))


# -- pickles


def test_pickles_under_the_name_of_weights(folder, mark):
    for _, data in pickles(mark):
        pin(folder, data)
        refused(folder, "is a pickle|not a valid safetensors file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.PTH"])
def test_pickles_in_place_of_weights_and_beside_them(folder, mark, name):
    (folder / name).write_bytes(next(pickles(mark))[1])
    assert zoo.load_checkpoint(folder).weights_sha256
    (folder / "model.safetensors").unlink()
    refused(folder, "no checkpoint at")
    with pytest.raises(ZooError, match="looks like a pickle"):
        zoo.load_checkpoint(folder / name)


def test_a_file_of_another_kind_is_no_checkpoint(folder):
    (folder / "x.onnx").write_bytes(b"")
    with pytest.raises(ZooError, match=r"no checkpoint at .*x\.onnx: expected a directory"):
        zoo.load_checkpoint(folder / "x.onnx")


@pytest.mark.parametrize("remainder", [0x80, 0x50])
def test_a_good_file_that_starts_like_a_pickle(folder, remainder):
    """The first byte is that of the header's length: 0x80 or "P" by chance."""
    tensors = tensors_of(folder)
    files = (safetensors.torch.save(tensors, {"format": "pt", "padding": "x" * n}) for n in range(256))
    pin(folder, data := next(data for data in files if data[0] == remainder))
    assert zoo.load_checkpoint(folder).weights_sha256 == sha256_of(data)


# -- weights


def test_weights_that_do_not_fit(folder):
    good = tensors_of(folder)
    for change, words in (
        ({"fc.weight": torch.zeros(11, 32)}, r"'fc\.weight' has shape \[11, 32\]"),
        ({"fc.weight": good["fc.weight"].T.contiguous()}, r"fc\.weight"),
        ({"fc.weight": good["fc.weight"].int()}, "type torch.int32"),
        ({"fc.weight": good["fc.weight"].to(torch.float8_e4m3fn)}, "type torch.float8_e4m3fn"),
        ({"fc.weight": torch.full_like(good["fc.weight"], float("nan"))}, r"'fc\.weight' holds NaN"),
        ({"fc.weight": torch.full_like(good["fc.weight"], 1e300, dtype=torch.float64)}, "holds NaN or infinite"),
        ({"bn1.running_var": torch.full_like(good["bn1.running_var"], float("-inf"))}, "holds NaN or infinite"),
        ({"more": torch.zeros(1)}, "no tensor 'more'"),
    ):
        pin(folder, safetensors.torch.save(good | change))
        refused(folder, words)
    pin(folder, safetensors.torch.save({k: v for k, v in good.items() if k != "bn1.weight"}))
    refused(folder, r"lacks the tensor 'bn1\.weight'")


def test_weights_whose_logits_are_not_finite(folder):
    good = tensors_of(folder)
    large = {key: torch.full_like(value, 1e38, dtype=torch.float32) for key, value in good.items() if key[:3] == "fc."}
    cfg = {key: value for key, value in config_of(folder)["pretrained_cfg"].items() if key != "label_names"}
    pin(folder, safetensors.torch.save(good | large), pretrained_cfg=cfg)
    Image.new("RGB", (32, 32), (90, 20, 200)).save(folder / "x.png")
    for use in (
        lambda: predict(zoo.load(folder), folder / "x.png"),
        lambda: validate(str(folder), "digits", limit=4, device="cpu"),
    ):
        with pytest.raises(ZooError, match="logits that are not finite"):
            use()


def test_a_network_takes_no_more_than_its_weights_allow(tmp_path):
    folder = shutil.copytree(BUNDLED / "plif_net_w32.t4_cifar10", tmp_path / "net")
    for side in (512, 4096):
        args = config_of(folder)["model_args"] | {"img_size": side}
        (folder / "config.json").write_text(json.dumps(config_of(folder) | {"model_args": args}))
        refused(folder, "asks for a network that takes more than")
    with WithinMemory({}, 4), pytest.raises(ZooError, match="takes more than 67,108,864 bytes"):
        torch.zeros(2**25)


@pytest.mark.parametrize(("start", "end", "flip"), [(0, -100, 0), (0, None, 1)])
def test_a_file_that_was_cut_short_or_changed(folder, start, end, flip):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= flip
    (folder / "model.safetensors").write_bytes(data[start:end])
    refused(folder, "cut short or changed")


def header(text, length=None, tail=b""):
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(data) if length is None else length) + data + tail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        header(b"{}", 3),  # the file holds two
        header(b"{}" + b" " * 2**23),
        header({"fc.weight": {"dtype": "\x1b[2J\nerror: forged", "shape": [1], "data_offsets": [0, 4]}}, tail=b"1234"),
        header({}, 10 * GIB),
        header({}, 2**64 - 1),
        header(b"{" + b" " * 100),
        header(b"[]"),
        header(b"{" + b'"a":{' * 50_000),
        header({"a": 1}),
        header({"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [10**15, 10**15 + 4]}}, tail=b"1234"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, 8]}}, tail=b"1234"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}, tail=b"1234"),
    ],
)
def test_headers_that_lie(folder, data):
    pin(folder, data)
    refused(folder, "not a valid safetensors file|does not fit")


# -- config.json


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "../../etc/passwd"}, "unknown architecture"),
        ({"architecture": "resnet18"}, "resnet18"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"model_args": {"timesteps": 2, "width": 4096}}, "does not fit"),
        ({"model_args": {"timesteps": 0}}, "does not fit"),
        ({"model_args": {"timesteps": 10**9}}, "no network counts"),
        ({"model_args": {"neuron": {"name": "lif", "a": [-(10**9)]}}}, "no network counts"),
        ({"model_args": {"neuron": {"name": "os.system"}}}, "does not fit"),
        ({"model_args": {"neuron": nested(900)}}, "does not fit|as JSON"),
        ({"model_args": {"checkpoint_path": "/tmp/evil.pth"}}, "checkpoint_path"),
        ({"model_args": {"pretrained_cfg_overlay": {"file": "/tmp/evil.pth"}}}, "pretrained_cfg_overlay"),
        ({"model_args": {"features_only": True}}, "features_only"),
        ({"model_args": {"defaults": {"features_only": True}}}, "does not fit"),
        ({"model_args": {"depths": [9999] * 3}}, "depths is what makes"),
        ({"model_args": None}, "model_args"),
        ({"pretrained_cfg": {"mean": "x"}}, "input_size"),
    ],
)
def test_configs_that_ask_for_more_than_a_network(folder, changes, words):
    (folder / "config.json").write_text(json.dumps(config_of(folder) | changes))
    refused(folder, words, timm_too="num_classes" in changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [True] * 3},
        {"std": [0, 1, 1]},
        {"std": [1, 1]},
        {"input_size": [3, 32]},
        {"label_names": ["\x1b[2J"] * 10},
        {"input_size": [3, 30_000, 30_000]},
        {"interpolation": "evil"},
        {"crop_pct": "x"},
    ],
)
def test_preprocessing_that_cannot_be(folder, changes):
    config = config_of(folder)
    config["pretrained_cfg"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZooError, match=next(iter(changes))):
        zoo.load_checkpoint(folder)


def test_configs_that_are_none(folder):
    file = folder / "config.json"
    for text, words in (("{", "JSON"), ("[]", "valid dictionary")):
        file.write_text(text)
        refused(folder, words, timm_too=False)
    file.unlink()
    refused(folder, "no such file", timm_too=False)
    file.symlink_to("/dev/zero")
    refused(folder, "a device, not a file", timm_too=False)


def test_files_and_layers_that_a_config_names_are_ignored(folder, tmp_path, mark):
    """As source of weights, and as what timm should adapt."""
    (tmp_path / "evil.bin").write_bytes(next(pickles(mark))[1])
    config = config_of(folder)
    good = dict(config["pretrained_cfg"])
    for changes in (
        {"file": str(tmp_path / "evil.bin")},
        {"file": "../evil.bin", "custom_load": True},
        {"source": "local-dir", "file": str(tmp_path)},
        {"source": "hf-hub", "hf_hub_id": "org/evil", "hf_hub_filename": "../evil.bin", "custom_load": "hf"},
        {"url": f"file://{tmp_path}/evil.bin"},
        {"first_conv": "../x", "classifier": ["conv1", 5], "label_offset": 3, "architecture": "svgg5"},
    ):
        config["pretrained_cfg"] = good | changes
        (folder / "config.json").write_text(json.dumps(config))
        sha256 = sha256_of(folder / "model.safetensors")
        assert (model := zoo.load_checkpoint(folder)).weights_sha256 == sha256
        assert model.pretrained_cfg["architecture"] == config["architecture"]
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=3)
        assert torch.equal(model.conv1.weight, tensors_of(folder)["conv1.weight"])


def large_tensors(name, **kwargs):
    """Those that have memory where none should have."""
    with WithoutMemory():
        state = timm.create_model(name, **kwargs).state_dict()
    return [key for key, value in state.items() if value.device.type != "meta" and value.numel() > 1]


def test_every_network_can_be_checked_without_memory():
    families = {timm.models.model_entrypoint(name).__module__: name for name in zoo.list_models()}
    for name in families.values():
        assert not large_tensors(name), name
    for neuron in zoo.list_neurons():
        assert not large_tensors("sresnet19_w16", neuron=neuron), neuron


def test_memory(folder, mark):
    """In a process that may take some 300 MiB more than it has: each of these claims gigabytes, and none gets them."""
    sparse = folder / "sparse"
    sparse.mkdir()
    shutil.copy(folder / "config.json", sparse)
    with open(sparse / "model.safetensors", "wb") as file:
        file.truncate(10 * GIB)
    large = folder / "config"
    shutil.copytree(BUNDLED / NAME, large)
    os.truncate(large / "config.json", GIB)
    wide = folder / "wide"
    shutil.copytree(BUNDLED / NAME, wide)
    pin(wide, (wide / "model.safetensors").read_bytes(), num_classes=10**9)
    pin(folder, header({}, 10 * GIB))
    code = f"""
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, -1))
try:
    bytes(400 * 2**20)
    print("no limit")
except MemoryError:
    print("limited")
for folder in {[str(path) for path in (sparse, large, wide, folder)]!r}:
    attempt(lambda: zoo.load_checkpoint(folder))
attempt(lambda: zoo.create_model({NAME!r}, pretrained=True))
"""
    lines = outcomes(loopback()[1].run(TRY + code))
    assert lines[0] == "limited"
    for line, words in zip(
        lines[1:5], ("not a valid safetensors", "at most", "num_classes", "10,737,418,240 bytes"), strict=True
    ):
        assert line.startswith("error: ")
        assert words in line
    assert lines[5].startswith("ok ")


# -- repositories


def test_names_that_lead_out_and_that_are_fine():
    out = ["../evil", "a/../../evil", "/etc/evil", "a//b", "..", ".git/hooks/x", "a\\..\\evil", "C:/evil", "a\0b", ""]
    out += ["a/.. /evil", "a\u202eb"]
    for name in out:
        with pytest.raises(ZooError, match="forbidden name"):
            check_name(name, "org/net")
    fine = ["README.md", ".eval_results/cifar10.yaml", ".gitattributes", "results/a-b_c.1.json", "a b.txt"]
    for name in (*fine, "Größe.png", "it's"):
        check_name(name, "org/net")


def test_pulling_what_leads_out(tmp_path):
    server, client = loopback()
    good = {path.name: path.read_bytes() for path in (BUNDLED / NAME).iterdir()}
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    for number, name in enumerate(["../evil", "a/../../../evil", str(tmp_path / "evil"), ".git/hooks/evil"]):
        repo = f"org/leads-out-{number}"
        server.add(repo, good | {name: b"evil"})
        done = client.hub("pull", repo, "-o", tmp_path / "deep" / "deeper" / "got")
        assert_one_error(done, "forbidden name", repo)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "deeper"]
    assert not list(client.home.rglob("evil"))


def test_repositories_that_mean_harm(tmp_path, mark):
    """Through every way to load from a Hub; none lets a pickle run, or takes what config.json does not vouch for."""
    server, client = loopback()
    evil = next(pickles(mark))[1]
    good = {path.name: path.read_bytes() for path in (BUNDLED / NAME).iterdir()}
    config = json.loads(good["config.json"])

    def vouched(data, **changes):
        return {
            "config.json": json.dumps(config | {"weights_sha256": sha256_of(data)} | changes).encode(),
            "model.safetensors": data,
        }

    tensors = safetensors.torch.load(good["model.safetensors"])
    spoilt = safetensors.torch.save(tensors | {"fc.weight": torch.full_like(tensors["fc.weight"], float("nan"))})
    np.savez(archive := io.BytesIO(), images=np.zeros(1))  # a zip, as a pickle of torch.save is
    elsewhere = config["pretrained_cfg"] | {"hf_hub_filename": "pytorch_model.bin", "custom_load": "hf"}
    cases = {
        "pickle-only": ({"config.json": good["config.json"], "pytorch_model.bin": evil}, "model.safetensors"),
        "disguised": (vouched(evil), "is a pickle"),
        "not-vouched-for": (good | {"model.safetensors": safetensors.torch.save(tensors)}, "cut short or changed"),
        "nan": (vouched(spoilt), "NaN"),
        "huge": (vouched(header({}, 10 * GIB)), "10,737,418,240 bytes"),
        "factory": (vouched(good["model.safetensors"], model_args={"checkpoint_path": str(mark)}), "checkpoint_path"),
    }
    for name, (files, _) in cases.items():
        server.add(f"org/harm-{name}", files)
    server.add(
        "org/harm-elsewhere",
        vouched(good["model.safetensors"], pretrained_cfg=elsewhere)
        | {"pytorch_model.bin": evil, "extra.safetensors": evil, "notes.npy": evil, "events.npz": archive.getvalue()},
    )
    names = [*cases, "elsewhere"]
    code = f"""
for name in {names!r}:
    attempt(lambda: zoo.create_model("hf-hub:org/harm-" + name))
    attempt(lambda: timm.create_model("hf-hub:org/harm-" + name, pretrained=True))
"""
    lines = outcomes(client.run(TRY + code, cwd=tmp_path))
    for name, pair in zip(names, zip(lines[::2], lines[1::2], strict=True), strict=True):
        for line in pair:
            if name == "elsewhere":
                assert line == f"ok {sha256_of(good['model.safetensors'])}"
            else:
                assert line.startswith("error: "), (name, line)
                assert cases[name][1] in line, (name, line)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    assert "left out" in client.do("pull", "org/harm-elsewhere", "-o", tmp_path / "got")
    assert sorted(os.listdir(tmp_path / "got")) == ["config.json", "events.npz", "model.safetensors"]
    for name in ("pickle-only", "disguised", "nan"):
        assert_one_error(client.hub("pull", f"org/harm-{name}", "-o", tmp_path / name), f"org/harm-{name}")
        assert not (tmp_path / name).exists()
