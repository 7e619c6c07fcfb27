"""Publishing and loading through a Hub: a loopback one, spoken to by the unmodified huggingface_hub client.

Every command runs in a process of its own, see hub_client; no test reaches a network.
"""

import json
import re
import shutil

import onnx
import pytest
import torch
import yaml
from conftest import ROOT, accuracy, assert_one_error, latency, snapshot
from conftest import onnx as onnx_result
from hub_client import NAME, TRY, loopback, outcomes
from huggingface_hub import ModelCard
from minihub import TOKEN, Handler

import zoo
from zoo.commands import parse_hub
from zoo.errors import ZooError
from zoo.files import read_json, sha256_of
from zoo.hub.__main__ import main
from zoo.hub.client import plan, split_revision
from zoo.hub.release import card, collect
from zoo.names import BUNDLED


@pytest.fixture
def server():
    """The Hub, without faults of an earlier test."""
    hub, _ = loopback()
    hub.faults.clear()
    yield hub
    hub.faults.clear()


@pytest.fixture
def client(server):
    return loopback()[1]


@pytest.fixture
def repo(request):
    """A repository of this test alone."""
    return "org/" + re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")


def make_run(folder, seed=None):
    """A run directory as recipes.train leaves it: a bundled checkpoint, or random weights of a seed."""
    if seed is None:
        shutil.copytree(BUNDLED / NAME, folder)
    else:
        torch.manual_seed(seed)
        model = zoo.create_model(NAME.split(".")[0], timesteps=2)
        data_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
        zoo.save_checkpoint(folder, model, tag=NAME.split(".")[1], data_cfg=data_cfg)
    config = json.loads((folder / "config.json").read_text())
    config["recipe"] = {"model": config["architecture"], "dataset": "cifar10", "seed": 7, "init": "else"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config["recipe"] | {"out": "/somewhere"}))
    (folder / "summary.csv").write_text("epoch,lr\n1,0.1\n")
    (folder / "result.json").write_text(json.dumps(measured(folder)))
    return folder


def measured(folder, make=accuracy, **changes):
    """A result of the weights in a folder."""
    facts = {
        "model": NAME.split(".")[0],
        "top1": 65.32,
        "spikes_per_image": 69518.3,
        "command": "python -m recipes.train x --epochs 3",
        "commit": "c" * 40,
        "machine": {"system": "s", "cpu": "a | b", "cores": 2, "threads": 1, "gpu": None},
        "weights_sha256": sha256_of(folder / "model.safetensors"),
    }
    return make(**facts | changes)


def add_graph(folder, run):
    """An ONNX file and its latency, as `python -m export` and `export.bench_ort` leave them."""
    folder.mkdir(exist_ok=True)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    proto = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(proto, {"weights_sha256": sha256_of(run / "model.safetensors")})
    onnx.save(proto, folder / "net.onnx")
    (folder / "speed.json").write_text(json.dumps(measured(run, onnx_result, latency=[latency(1, 1, 1.634)])))
    return folder / "net.onnx", folder / "speed.json"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def push(server, repo, folder, **more):
    """What `push` would leave in a repository, without the client's round trip."""
    return server.add(repo, collect(folder).files | more)


# -- push and pull


def test_push_then_pull(server, client, repo, run, tmp_path):
    graph, speed = add_graph(tmp_path / "more", run)
    arguments = ["push", run, "--repo", repo, "--onnx", graph, "--result", speed]
    again = parse_hub([*map(str, arguments), "--onnx", "b.onnx", "--result", "b.json"])  # both, not the last
    assert (again.onnx, again.result) == ([str(graph), "b.onnx"], [str(speed), "b.json"])
    client.do(*arguments, token=TOKEN)
    files, head = server.files(repo), server.repos[repo].refs["main"]
    for name in ("model.safetensors", "config.json", "summary.csv", "result.json"):
        assert files[name] == (run / name).read_bytes()
    assert files["net.onnx"] == graph.read_bytes()
    assert files["results/speed.json"] == speed.read_bytes()
    assert yaml.safe_load(files["recipe.yaml"]) == json.loads(files["config.json"])["recipe"]
    assert set(files) == {
        *("model.safetensors", "config.json", "summary.csv", "result.json", "recipe.yaml", "net.onnx"),
        *("README.md", "results/speed.json"),
    }
    assert len(server.repos[repo].commits) == 2  # the empty one that every repository starts with, and ours

    assert "nothing to do" in client.do(*arguments, token=TOKEN)
    assert (len(server.repos[repo].commits), server.repos[repo].refs["main"]) == (2, head)

    client.do("pull", repo, "-o", tmp_path / "got")
    assert snapshot(tmp_path / "got") == {tmp_path / "got" / name: data for name, data in files.items()}
    assert not list(tmp_path.glob(".*"))
    snippet = re.search("```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)[1]
    done = client.run(snippet)
    assert done.stdout.strip() in json.loads(files["config.json"])["pretrained_cfg"]["label_names"], done.stderr


def test_new_weights_take_the_old_ones_results_with_them(server, client, repo, run, tmp_path):
    other = push(server, repo, run, **{"old.onnx": b"x", "results/old.json": b"{}", "notes.txt": b"kept"})
    client.do("push", make_run(tmp_path / "new", seed=1), "--repo", repo, token=TOKEN)
    assert {"old.onnx", "results/old.json"} & set(server.files(repo)) == set()
    assert server.files(repo)["notes.txt"] == b"kept"
    assert "old.onnx" in server.files(repo, other)


def test_a_dry_run_shows_what_would_be_published_and_sends_nothing(run, capsys, monkeypatch):
    monkeypatch.setattr("zoo.hub.client.HfApi", None)
    main(["push", str(run), "--repo", "me/net", "--dry-run", "--private"])
    text = capsys.readouterr().out
    assert text.startswith("---\n")
    assert all(name in text for name in ("model.safetensors", "config.json", "would go to me/net, private"))
    assert "license: apache-2.0" in text  # as its config.json says


def test_the_card(run, tmp_path):
    graph, speed = add_graph(tmp_path / "more", run)
    (tmp_path / "other.json").write_text(json.dumps(measured(run, dataset="a_first_by_name", top1=1.0)))
    release = collect(run, [graph], [speed, tmp_path / "other.json"])
    text = card(release, "org/net")
    assert text == card(collect(run, [graph], [tmp_path / "other.json", speed]), "org/net")
    parsed = ModelCard(text)
    values = {r.metric_name: (r.dataset_type, r.dataset_split, r.metric_value) for r in parsed.data.eval_results}
    assert values["Top-1 accuracy (%)"] == ("uoft-cs/cifar10", "test", 65.32)
    assert values["Spikes per image"][2] == 69518
    assert (parsed.data.license, parsed.data.pipeline_tag) == (None, "image-classification")
    assert ModelCard(card(release, "org/net", "cc-by-4.0")).data.license == "cc-by-4.0"
    for fact in (
        *("python -m recipes.train x --epochs 3", "| seed | 7 |", "| started from | else |"),
        *("c" * 40, "d" * 64, "69,518 spikes", "2308.00558"),
        *(
            "Top-1 on the test set: **65.32 %**",
            "| fp32 | flat | 1 | 1 | 1.63 | 2.63 | CPUExecutionProvider | a \\| b, 2 cores |",
        ),
    ):
        assert fact in text, fact
    assert "/somewhere" not in text


def test_the_card_of_a_training_in_stages_names_them(run):
    config = read_json(run / "config.json")
    chain = [
        {"name": f"net.{name}", "weights_sha256": "a" * 64, "epochs": epochs, "train_seconds": s, "recipe_sha256": None}
        for name, epochs, s in (("second", 7, None), ("first", 5, 9576.1), ("found", None, None))
    ]
    (run / "config.json").write_text(json.dumps(config | {"started_from": chain}))
    said = "net.second (epochs 7), before that net.first (epochs 5, seconds 9,576.1), before that net.found"
    assert f"| started from | {said} |" in card(collect(run), "org/net")
    (run / "config.json").write_text(json.dumps(config | {"started_from": [{"name": 3}]}))
    assert "| started from | else |" in card(collect(run), "org/net")


def test_the_card_has_what_a_result_counts(run):
    def columns():
        return next(line for line in card(collect(run), "org/net").splitlines() if "top-1 (%)" in line)

    assert columns() == "| data set | split | images | top-1 (%) | spikes per image |"
    costs = {"Effective_ACs": 1234567.0, "Effective_MACs": 0.0, "energy_uj": 1.111}
    (run / "result.json").write_text(json.dumps(measured(run, **costs)))
    assert "MACs per image | energy at 45 nm (µJ per image) |" in columns()
    assert "69,518 | 1,234,567 | 0 | 1.11 |" in card(collect(run), "org/net")


def test_the_card_names_the_rule_of_the_training_not_of_the_name(run, tmp_path):
    plain = zoo.create_model(NAME.split(".")[0], timesteps=2, scaling=None)
    make_run(tmp_path / "plain", seed=1)
    cfg = {"mean": [0.1] * 3, "std": [0.1] * 3}
    zoo.save_checkpoint(tmp_path / "plain", plain, tag="t2", data_cfg=cfg, recipe={"dataset": "cifar10"})
    (tmp_path / "plain" / "result.json").unlink()
    text = card(collect(tmp_path / "plain"), "org/net")
    assert "2308.00558" not in text
    assert "@software{snnzoo" in text


def test_nothing_in_the_card_is_html(run):
    """Whatever a record and a recipe say, which may be somebody else's."""
    evil = "<script>alert(1)</script>"
    machine = {"system": "s", "cpu": evil, "cores": 2, "threads": 1, "gpu": None}
    (run / "result.json").write_text(json.dumps(measured(run, command=f"x `{evil}`", machine=machine)))
    config = read_json(run / "config.json")
    config["recipe"] |= {"dataset": evil, "seed": evil, "init": evil, "epochs": [evil]}
    (run / "config.json").write_text(json.dumps(config))
    text = card(collect(run), "org/net").split("---\n", 2)[2]
    assert text.count("&lt;script>") == 7
    assert "<" not in text


def test_a_later_result_on_fewer_images_is_not_the_result(run, tmp_path):
    later = measured(run, images=500, top1=99.0, date="2026-02-01T12:00:00Z")
    (tmp_path / "later.json").write_text(json.dumps(later))
    release = collect(run, results=[tmp_path / "later.json"])
    assert len(release.results) == 2
    assert release.accuracies == release.results[:1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "no run directory"),
        (lambda run: (run / "summary.csv").unlink(), r"no finished run: it lacks summary\.csv"),
        (lambda run: (run / "model.safetensors").unlink(), r"lacks model\.safetensors"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x" * 99), "not a valid safetensors file"),
        (lambda run: (run / "result.json").write_text(json.dumps(measured(run, top1=None))), "top1"),
        (lambda run: (run / "result.json").write_text(json.dumps(accuracy(weights_sha256="0" * 64))), "other weights"),
    ],
)
def test_runs_that_cannot_be_published(run, damage, words):
    damage(run)
    with pytest.raises(ZooError, match=words):
        main(["push", str(run), "--repo", "org/net"])


def test_files_that_cannot_be_published(run, tmp_path):
    graph, speed = add_graph(tmp_path / "more", make_run(tmp_path / "other", seed=1))
    for option, path, words in (
        ("--onnx", graph, "exported from other weights"),
        ("--onnx", speed, "cannot read .* as ONNX"),
        ("--result", speed, "measured on other weights"),
        ("--result", tmp_path / "absent.json", "no such file"),
    ):
        with pytest.raises(ZooError, match=words):
            main(["push", str(run), option, str(path)])
    graph, speed = add_graph(tmp_path / "more", run)
    with pytest.raises(ZooError, match="two files would be published"):
        plan(run, onnx=[graph, graph])
    part = tmp_path / "part.json"
    part.write_text(json.dumps(json.loads((run / "result.json").read_text()) | {"partial": True}))
    with pytest.raises(ZooError, match="a part of the test set: measure without --limit"):
        plan(run, results=[part])
    longer = {"timesteps": 8, "spikes_per_step": [1.0] * 8, "spikes_per_image": 8.0}
    part.write_text(json.dumps(json.loads((run / "result.json").read_text()) | longer))
    with pytest.raises(ZooError, match="was measured with 8 time steps, and the network has 2"):
        plan(run, results=[part])
    with pytest.raises(ZooError, match="called 'My own': give"):
        plan(run, license="My own")
    with pytest.raises(ZooError, match=r"config\.json says license 'apache-2\.0': the card cannot say 'mit'"):
        plan(run, license="mit")
    with pytest.raises(ZooError, match="default branch of me/x: leave @v1 out"):
        plan(run, "me/x@v1")
    graph.rename(unlike := graph.with_name("größe.onnx"))  # which pull would refuse
    with pytest.raises(ZooError, match=r"cannot publish .*größe\.onnx under its name"):
        plan(run, onnx=[unlike])
    with pytest.raises(ZooError, match="under its name"):
        plan(run, results=[speed.rename(speed.with_name("a b.json"))])


def test_names_of_repositories():
    assert split_revision("org/net@v1") == ("org/net", "v1")
    assert split_revision("org/net", "v1") == split_revision("org/net@v1", "v1")
    for name in ("net", "a/b/c", "org/ne t", "org/..", "org/net@", "../net", "org/a--b", ""):
        with pytest.raises(ZooError, match=re.escape(repr(name))):
            split_revision(name)
    with pytest.raises(ZooError, match="one revision"):
        split_revision("org/net@v1", "v2")


# -- loading


def test_the_same_network_through_every_door(server, client, repo, run):
    commit = push(server, repo, run)
    code = f"""
import sys
want = zoo.create_model({NAME!r}, pretrained=True)
hub = "hf-hub:{repo}"
for model in (
    timm.create_model(hub, pretrained=True),
    zoo.create_model(hub),
    zoo.create_model(hub + "@{commit}"),
    zoo.create_model("local-dir:" + {str(run)!r}),
    zoo.create_model(hub, pretrained=True, num_classes=10),
):
    assert torch.equal(logits(model), logits(want))
    assert model.weights_sha256 == want.weights_sha256, model.weights_sha256
    assert model.timesteps == 2 and list(model.pretrained_cfg["label_names"]) == want.pretrained_cfg["label_names"]
for create in (zoo.create_model, lambda *a, **k: timm.create_model(*a, pretrained=True, **k)):
    other = create(hub, num_classes=7, in_chans=1, timesteps=3)
    assert other(torch.zeros(1, 1, 32, 32)).shape == (1, 7) and other.timesteps == 3
    assert other.weights_sha256 is None
    assert torch.equal(other.stages[0][0].conv1.weight, want.stages[0][0].conv1.weight)
    assert torch.allclose(other.conv1.weight, want.conv1.weight.sum(1, keepdim=True), rtol=1e-3)
from zoo import load
assert torch.equal(logits(load(hub)), logits(want))
from export.__main__ import load as load_to_export
network, untrained = load_to_export(hub, timesteps=2)
assert torch.equal(logits(network), logits(want)) and not untrained
attempt(lambda: zoo.create_model(hub, timestep=3))
features = zoo.create_model(hub, features_only=True)
assert isinstance(features(torch.zeros(1, 3, 32, 32)), list)
"""
    (line,) = outcomes(client.run(TRY + code))
    assert "timestep" in line


def test_revisions(server, client, repo, run, tmp_path):
    first = push(server, repo, run)
    server.repos[repo].refs["v1"] = first
    push(server, repo, make_run(tmp_path / "new", seed=1))
    old, new = (sha256_of(folder / "model.safetensors") for folder in (run, tmp_path / "new"))
    revisions = ["", "@v1", f"@{first}", "@v2", f"@{'0' * 40}"]
    code = f"for name in {revisions!r}: attempt(lambda: zoo.create_model('hf-hub:{repo}' + name))"
    lines = outcomes(client.run(TRY + code))
    assert lines[:3] == [f"ok {new}", f"ok {old}", f"ok {old}"]
    for line, revision in zip(lines[3:], ("v2", "0" * 40), strict=True):
        assert f"answers 404 for {repo}@{revision}: " in line
    client.do("pull", f"{repo}@v1", "-o", tmp_path / "v1")
    assert sha256_of(tmp_path / "v1" / "model.safetensors") == old
    assert_one_error(client.hub("pull", repo, "--revision", "v2", "-o", tmp_path / "v2"), f"{repo}@v2", "404")
    assert not (tmp_path / "v2").exists()
    assert_one_error(client.hub("pull", repo, "-o", tmp_path / "v1"), "exists already")


def test_private_repositories(server, client, repo, run, tmp_path):
    client.do("push", run, "--repo", repo, "--private", token=TOKEN)
    assert server.repos[repo].private
    code = f"""
for token in (None, "hf_wrong", {TOKEN!r}):
    os.environ.pop("HF_TOKEN", None) if token is None else os.environ.update(HF_TOKEN=token)
    attempt(lambda: zoo.create_model("hf-hub:{repo}"))
os.environ["HF_TOKEN"] = {TOKEN!r}
attempt(lambda: zoo.create_model("hf-hub:org/absent"))
"""
    lines = outcomes(client.run(TRY + code))
    assert [line.startswith("ok ") for line in lines] == [False, False, True, False]
    for line, name in ((lines[0], repo), (lines[1], repo), (lines[3], "org/absent")):
        assert f"for {name}: " in line
        assert "HF_TOKEN, or `hf auth login`, gives the token" in line
    assert_one_error(client.hub("pull", repo, "-o", tmp_path / "got"), repo, "HF_TOKEN")
    assert not (tmp_path / "got").exists()
    assert not any("hf_wrong" in line or TOKEN in line for line in lines)

    server.repos[repo].private = False
    assert_one_error(client.hub("push", run, "--repo", repo, "--private", token=TOKEN), repo, "is public")


def test_publishing_without_the_right_to(server, client, repo, run):
    assert_one_error(client.hub("push", run, "--repo", repo), repo, "HF_TOKEN")
    assert_one_error(client.hub("push", run, "--repo", "others/net", token=TOKEN), "others/net", "403", "HF_TOKEN")
    assert_one_error(client.hub("push", run, "--repo", repo, offline=True), repo, "HF_HUB_OFFLINE")
    assert repo not in server.repos


def test_published_checkpoints_are_pinned(server, client, repo, run, tmp_path):
    """A plain name that is not bundled: known, fetched, checked, cached; here in a zoo that has published some."""
    commit = push(server, repo, run)
    push(server, repo, make_run(tmp_path / "new", seed=1))  # moves main, which no pin notices
    shutil.copytree(ROOT / "zoo", tmp_path / "site" / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    architecture = NAME.split(".")[0]
    digest = sha256_of(run / "model.safetensors")
    pins = {"good": digest, "bad": "0" * 64}
    entries = {f"{architecture}.{t}": {"repo": repo, "revision": commit, "sha256": sha} for t, sha in pins.items()}
    entries["sresnet20.only"] = entries[f"{architecture}.good"]
    (tmp_path / "site" / "zoo" / "weights" / "published.json").write_text(json.dumps(entries))
    code = f"""
print([name for name in zoo.list_pretrained() if name.endswith((".good", ".bad", ".only"))])
attempt(lambda: zoo.create_model("{architecture}.good", pretrained=True))
attempt(lambda: timm.create_model("{architecture}.good", pretrained=True))
attempt(lambda: zoo.create_model("{architecture}.bad", pretrained=True))
attempt(lambda: zoo.create_model("sresnet20", pretrained=True))
attempt(lambda: zoo.create_model("sresnet19", pretrained=True))
attempt(lambda: zoo.create_model("{architecture}", pretrained=True))
"""
    here = {"zoo": tmp_path / "site"}
    lines = outcomes(client.run(TRY + code, **here))
    assert lines[0] == str(sorted(entries))
    assert lines[1:3] == [f"ok {digest}"] * 2
    assert "not those that this zoo was released with" in lines[3]
    assert f"holds a checkpoint of '{architecture}', not of 'sresnet20'" in lines[4]
    assert "sresnet19 has no published weights" in lines[5]
    assert lines[6].startswith("ok ")  # bundled, and so the default
    server.fault("/", 500)
    assert outcomes(client.run(TRY + code, offline=True, **here))[:2] == lines[:2]


# -- what goes wrong on the way


@pytest.mark.parametrize("request_", ["GET /api/models/", "POST .*/preupload/", "PUT /_lfs/", "POST .*/commit/"])
def test_uploads_that_fail_leave_the_repository_as_it_was(server, client, repo, run, tmp_path, request_):
    before = push(server, repo, make_run(tmp_path / "old", seed=1))
    # What both runs would send is on the Hub already; the weights are not.
    server.blobs.pop(sha256_of(run / "model.safetensors"), None)
    server.fault(request_, 503)
    assert_one_error(client.hub("push", run, "--repo", repo, token=TOKEN), repo, "503")
    assert server.repos[repo].refs["main"] == before


def test_somebody_else_commits_meanwhile(server, client, repo, run):
    """Nothing of theirs is lost: ours is refused, and looks at what they did when it starts again."""
    push(server, repo, run)
    files = server.files(repo)
    server.fault(r"POST .*/commit/", lambda: server.add(repo, files | {"theirs.txt": b"theirs"}), times=1)
    words = ["push", run, "--repo", repo]
    assert_one_error(client.hub(*words, token=TOKEN), repo, "has changed meanwhile: start again")
    client.do(*words, token=TOKEN)
    assert {"theirs.txt", "README.md"} <= set(server.files(repo))


def test_downloads_that_fail_are_one_sentence(server, client, repo, run, tmp_path):
    push(server, repo, run)
    load = f"attempt(lambda: zoo.create_model('hf-hub:{repo}'))"
    for request_, way, words in (
        (r"GET /_store/", "truncate", "cannot reach http"),
        (r"GET /_store/", "garble", "not a valid safetensors file"),
        (r"GET /_store/", 503, "answers 503"),
    ):
        server.faults.clear()
        server.fault(request_, way)
        if way == "truncate":  # so that trying to go on where it ended brings nothing new
            server.fault(request_, "drop")
            server.faults[0].times = 1
        (line,) = outcomes(client.run(TRY + load, cache=f"cache-{way}"))
        assert line.startswith("error: "), (way, line)
        assert words in line, (way, line)
    assert_one_error(client.hub("pull", repo, "-o", tmp_path / "got"), "503")
    assert not list(tmp_path.glob("*got*"))
    server.faults.clear()
    expected = [f"ok {sha256_of(run / 'model.safetensors')}"]
    assert outcomes(client.run(TRY + load, cache="cache-503")) == expected
    server.fault("/", 500)  # what is in the cache needs no Hub
    assert outcomes(client.run(TRY + load, cache="cache-503")) == expected


def test_offline(server, client, repo, run, tmp_path):
    push(server, repo, run)
    code = f"""
for create in (zoo.create_model, lambda name: timm.create_model(name, pretrained=True)):
    attempt(lambda: create("hf-hub:{repo}"))
"""
    lines = outcomes(client.run(TRY + code))
    assert lines[0].startswith("ok ")
    seen = len(server.log)
    assert outcomes(client.run(TRY + code, offline=True)) == lines
    assert len(server.log) == seen
    cold = client.run(
        TRY + code.replace(", lambda name: timm.create_model(name, pretrained=True)", ","), offline=True, cache="other"
    )
    (line,) = outcomes(cold)
    assert "offline (HF_HUB_OFFLINE is set)" in line
    assert repo in line
    own = f'attempt(lambda: zoo.load("hf-hub:{repo}", cache_dir="elsewhere"))'
    assert f"{repo} is not in the cache elsewhere" in outcomes(client.run(TRY + own, offline=True, cache="other"))[0]
    for cache in ("cache", "other"):  # warm or cold, a copy of all that a repository holds takes the Hub
        done = client.hub("pull", repo, "-o", tmp_path / "got", offline=True, cache=cache)
        assert_one_error(done, repo, "HF_HUB_OFFLINE", "takes the Hub")


def test_a_branch_that_moves_during_a_download(server, client, repo, run, tmp_path):
    """What is loaded is one version, whatever is pushed meanwhile."""
    push(server, repo, run)
    files = {path.name: path.read_bytes() for path in make_run(tmp_path / "new", 2).iterdir()}
    server.fault(r"GET /_store/", lambda: server.add(repo, files), times=1)
    (line,) = outcomes(client.run(TRY + f'attempt(lambda: zoo.create_model("hf-hub:{repo}"))'))
    assert line == f"ok {sha256_of(run / 'model.safetensors')}"


def test_pull_looks_before_it_fetches_the_rest(server, client, repo, run, tmp_path):
    """Of another library's repository, which may have gigabytes beside them."""
    (run / "model.h5").write_bytes(b"large")
    config = json.loads((run / "config.json").read_text())
    for wrong in ({"architecture": "vit"}, {"weights_sha256": "0" * 64}):
        (run / "config.json").write_text(json.dumps(config | wrong))
        server.add(repo, {path.name: path.read_bytes() for path in run.iterdir()})
        assert_one_error(client.hub("pull", repo, "-o", tmp_path / "got"), repo)
        assert not any("model.h5" in str(request) for request in server.log)
        weights = any(repo in str(request) and "model.safetensors" in str(request) for request in server.log)
        assert weights == ("architecture" not in wrong)
    (run / "config.json").write_text(json.dumps(config))
    server.add(repo, {path.name: path.read_bytes() for path in run.iterdir()})
    client.do("pull", repo, "-o", tmp_path / "got")
    assert any("model.h5" in str(request) for request in server.log)


def test_where_pull_writes(server, client, repo, run, tmp_path):
    push(server, repo, run)
    here, mine = tmp_path / "here", tmp_path / ".got.tmp"
    for folder in (here, mine, tmp_path / "real"):
        folder.mkdir()
    (mine / "precious").write_text("kept")
    (tmp_path / "link").symlink_to("real")
    for target in (".", here):
        assert_one_error(client.hub("pull", repo, "-o", target, cwd=here), "is the working directory")
    for target in ("got", "link", "new/folder"):
        client.do("pull", repo, "-o", target, cwd=tmp_path)
        assert (tmp_path / target / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.glob(".*")} == {".got.tmp"}
    assert (mine / "precious").read_text() == "kept"


INFO = {"id": "org/net", "sha": "0" * 40, "siblings": []}


@pytest.mark.parametrize(
    "answer",
    [{}, None, INFO | {"siblings": [{}]}, INFO | {"siblings": [{"rfilename": 5}]}],
)
def test_an_answer_that_no_hub_gives(server, client, repo, run, tmp_path, monkeypatch, answer):
    push(server, repo, run)
    send = Handler._send
    other = lambda body: answer if isinstance(body, dict) and "siblings" in body else body  # noqa: E731
    monkeypatch.setattr(
        Handler, "_send", lambda self, status, body=b"", **more: send(self, status, other(body), **more)
    )
    done = client.hub("pull", repo, "-o", tmp_path / "got")
    assert_one_error(done, "does not answer as a Hub does")
    assert not (tmp_path / "got").exists()
