"""An ablation on a Ray cluster of three nodes on this machine, one of which dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, assert_one_error, run_module

from recipes.run import STATE

COMPARED = ("top1", "spikes_per_image", "train_loss", "weights_sha256", "recipe_sha256", "plan", "arm", "seed")


def write(folder, seeds):
    recipe = {"model": "sresnet19_w16_gs", "dataset": "digits", "timesteps": 1, "epochs": 12, "amp": "off"}
    recipe |= {"train_images": 64, "batch_size": 16, "val_images": 16, "test": False, "checkpoint_minutes": 0}
    plan = {"seeds": seeds, "recipe": recipe, "arms": {"plain": {"scaling": "none"}, "window": {"scaling": "window"}}}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return [sys.executable, "-m", "recipes.ablate", str(folder / "plan.yaml"), "--work-dir", str(folder / "runs")]


def results(folder):
    found = {file.name: json.loads(file.read_text()) for file in (folder / "plan").glob("*.json")}
    return {name: {key: result[key] for key in COMPARED} for name, result in found.items()}


def measured(file):
    return [(part["top1"], part["spikes_per_image"]) for part in json.loads(file.read_text())["parts"]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cluster_that_loses_a_node_gives_the_results_of_the_plain_command(tmp_path):
    pytest.importorskip("ray", reason="needs Ray, of the extra 'ray'")
    from ray.cluster_utils import Cluster

    seeds = [3, 4, 5, 6] if os.environ.get("SNNZOO_THOROUGH") else [3, 4]
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    commands = {}
    for name in ("plain", "ray"):
        (tmp_path / name).mkdir()
        commands[name] = write(tmp_path / name, seeds)
    subprocess.run(commands["plain"], cwd=ROOT, env=environment, check=True)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        command = [*commands["ray"], "--ray", cluster.address]
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        runs = tmp_path / "ray" / "runs" / "plan"
        while len(list(runs.glob(f"*/{STATE}"))) < 3:  # so that each node trains
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        assert running.wait() == 0, running.communicate()[1]
        trained = [str(file.parent) for file in sorted(runs.glob("*/result.json"))]
        measure = [sys.executable, "-m", "leaderboard", "measure", *trained, "--runs", "3", "--precision", "fp32"]
        for more in (["--ray", cluster.address, "--out", "by-ray"], ["--out", "alone"]):
            subprocess.run([*measure, *more], cwd=tmp_path, env=environment | {"PYTHONSAFEPATH": "1"}, check=True)
    finally:
        cluster.shutdown()
    assert results(tmp_path / "ray") == results(tmp_path / "plain")
    assert max(log.read_text().count(" process(es), ") for log in runs.glob("*.log")) == 2  # the one that died
    files = [tmp_path.glob(f"{name}/*/*.json") for name in ("by-ray", "alone")]
    records = [{file.name: measured(file) for file in found} for found in files]
    assert records[0] == records[1]
    assert len(records[0]) == len(trained)


def test_without_ray_or_a_cluster_there_is_one_error(tmp_path):
    write(tmp_path, [3])
    plan = str(tmp_path / "plan.yaml")
    try:
        import ray  # noqa: F401
    except ImportError:
        assert_one_error(run_module("recipes.ablate", plan, "--ray", "auto"), "pip install -e '.[ray]'")
    else:
        done = run_module("recipes.ablate", plan, "--ray", "127.0.0.1:1", "--work-dir", tmp_path)
        assert_one_error(done, "cannot join a Ray cluster at 127.0.0.1:1")
