"""Ablations: plans, runs that are kept and resumed, paired differences."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, accuracy, assert_one_error, run_module
from scipy import stats

from recipes.ablate import _keep, _start, _why, ablate, chosen, state_of
from recipes.commands import PLANS
from recipes.differences import Difference, differences, holm, interval
from recipes.page import render, setting
from recipes.plan import load_plan
from zoo import plugins
from zoo.errors import ZooError
from zoo.files import locked

PLAN = {
    "question": "Does it help?",
    "seeds": [3, 4, 5],
    "recipe": {"model": "sresnet19_w16", "dataset": "digits", "timesteps": 2, "epochs": 1, "amp": "off"},
    "arms": {"plain": {"scaling": "none"}, "window": {"scaling": {"name": "window", "alpha": 0.9}}},
}


ANOTHER = accuracy()["machine"] | {"cpu": "another"}


def write(folder, **changes):
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(PLAN | changes))
    return str(file)


def fill(plan, top1, spikes):
    """Result files as training would leave them, with given numbers."""
    for run in plan.runs:
        if run.seed not in top1.get(run.arm, {}):
            continue
        result = {"plan": plan.name, "arm": run.arm} | accuracy(
            seed=run.seed, top1=top1[run.arm][run.seed], spikes_per_image=spikes[run.arm][run.seed]
        )
        result |= {"train_loss": 1.0, "recipe": run.recipe.settings}
        plan.folder.mkdir(exist_ok=True)
        (plan.folder / f"{run.name}.json").write_text(json.dumps(result))


def filled(folder, seeds, **changes):
    """A plan whose arms have results of these seeds, all alike."""
    plan = load_plan(write(folder, **changes))
    fill(plan, *2 * [{arm: dict.fromkeys(seeds, 50.0) for arm in PLAN["arms"]}])
    return plan


def page_of(plan):
    """The page, rendered anew."""
    render(plan)
    return (plan.folder / "README.md").read_text()


def change(plan, name, **changes):
    """Gives a result file other values."""
    file = plan.folder / f"{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_plan_is_arms_times_seeds(tmp_path):
    plan = load_plan(write(tmp_path))
    assert [run.name for run in plan.runs[:3]] == ["plain.seed3", "window.seed3", "plain.seed4"]
    assert len(plan.runs) == 6
    assert plan.contrasts == [("window", "plain")]
    first, second = plan.runs[:2]
    assert {k for k in first.recipe.settings if first.recipe.settings[k] != second.recipe.settings[k]} == {"scaling"}
    assert first.recipe.test_reads == 6


def test_the_page_says_every_setting_of_its_arms():
    results = [accuracy(), accuracy(timesteps=7, epochs=99, train_images=1234)]
    first = results[0]
    said = setting(results)
    assert f"T = {first['timesteps']} and 7, " in said
    assert " and 1,234 images of " in said
    assert f", {first['epochs']} and 99 epochs; " in said
    assert " and " not in setting(results[:1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": []}, "seeds"),
        ({"further_seeds": [5]}, r"must be different, not \[3, 4, 5, 5\]"),
        ({"arms": {"a": {"scalin": "none"}}}, "scalin"),
        ({"arms": {"a": {"scaling": "windo"}}}, "window"),
        ({"arms": {"a": {"model": "sresnet91"}}}, "sresnet91"),
        ({"arms": {"a": {"seed": 1}}}, "seeds"),
        ({"arms": {"a/b": {}}}, "a/b"),
        ({"contrasts": [["window", "plan"]]}, "plan"),
        ({"contrasts": [["window", "window"]]}, "two arms"),
        ({"arms": {0.5: {}}}, r"arms\.0\.5.* string, not 0\.5"),
        ({"recipe": {"test": False}}, "measure nothing"),
        ({"arms": {"a": {}, "b": {"val_images": 9}}}, "same images: set val_images"),
        ({"contrast": [1]}, "contrast"),
    ],
)
def test_bad_plans_are_named(tmp_path, changes, words):
    with pytest.raises(ZooError, match=words):
        load_plan(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "seeds: [1]", "seeds: [1]\nseeds: [2]"])
def test_files_that_are_no_plans(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ZooError, match=r"plan\.yaml"):
        load_plan(str(tmp_path / "plan.yaml"))
    with pytest.raises(ZooError, match="no such file"):
        load_plan(str(tmp_path / "nothing.yaml"))
    (tmp_path / "plan").write_text(yaml.safe_dump(PLAN))
    with pytest.raises(ZooError, match="its results go to the folder"):
        load_plan(str(tmp_path / "plan"))


def test_seeds_that_are_added_after_a_look_are_reported_by_themselves_too(tmp_path):
    plan = load_plan(write(tmp_path, seeds=[3, 4], further_seeds=[5, 6, 7]))
    assert [run.seed for run in plan.runs[::2]] == [3, 4, 5, 6, 7]
    assert plan.runs[0].recipe.test_reads == 10
    top1 = {"plain": dict.fromkeys((3, 4, 5, 6), 50.0), "window": {3: 51.0, 4: 52.0, 5: 50.5, 6: 49.5}}
    spikes = dict.fromkeys(top1, dict.fromkeys((3, 4, 5, 6), 100.0))
    fill(plan, top1, spikes)
    before, _, after = page_of(plan).partition("The 3 seeds from 5 on were added")
    assert "| window | plain | 4 | +0.75 ±" in before
    assert "| window | plain | 2 | +0.00 ±" in after
    for name in ("plain.seed5", "window.seed6"):  # no pair of the added ones
        (plan.folder / f"{name}.json").unlink()
    assert "were added" not in page_of(plan)


def test_paired_differences(tmp_path):
    plan = load_plan(write(tmp_path))
    top1 = {"plain": {3: 50.0, 4: 60.0, 5: 70.0}, "window": {3: 51.0, 4: 61.5, 5: 70.5}}
    spikes = {"plain": dict.fromkeys((3, 4, 5), 100.0), "window": {3: 90.0, 4: 95.0, 5: 100.0}}
    fill(plan, top1, spikes)
    (difference,) = differences(plan)
    accuracy, ratio = difference.top1, difference.spikes
    assert difference.pairs == 3
    test = stats.ttest_rel([51.0, 61.5, 70.5], [50.0, 60.0, 70.0])
    assert accuracy.p == difference.top1_p == pytest.approx(test.pvalue)  # of one contrast: nothing to correct
    assert accuracy.mean == pytest.approx(1.0)
    assert accuracy.half == pytest.approx(stats.t.ppf(0.975, 2) * 0.5 / math.sqrt(3))
    assert difference.verdict == "inconclusive"
    assert ratio.mean == pytest.approx(-5.0)
    assert "| window | plain | 3 | +1.00 ± 1.24 | inconclusive | 0.074 | -5.00 ± 12.42 | 0.225 |" in page_of(plan)
    assert (plan.folder / "plot.svg").read_text().lstrip().startswith("<?xml")
    render(plan, check=True)
    picture = (plan.folder / "plot.svg").read_text()
    (plan.folder / "plot.svg").write_text("<svg/>")
    with pytest.raises(ZooError, match=r"plot\.svg is not what its result files say"):
        render(plan, check=True)
    (plan.folder / "plot.svg").write_text(picture)
    (plan.folder / "window.seed5.json").unlink()  # a pair less: the page is out of date
    with pytest.raises(ZooError, match=r"python -m recipes.studies --render"):
        render(plan, check=True)
    assert differences(plan)[0].pairs == 2


@pytest.mark.parametrize(
    ("values", "contrasts", "verdict"),
    [
        ([1.0], 1, "one pair"),
        ([0.06, 75.06 - 75.0], 1, "no variance"),
        ([0.0, 0.0], 1, "no difference"),
        ([1.0, 1.1, 0.9], 1, "higher"),
        ([-1.0, -1.1, -0.9], 1, "lower"),
        ([-1.0, -1.1, -0.9], 20, "inconclusive"),  # the interval excludes 0, the test that is corrected does not
        ([0.1, -0.1, 0.0], 1, "no difference"),
        ([3.0, -3.0, 0.0], 1, "inconclusive"),
        ([0.8, 0.4, -0.1, 0.3, 0.6, -0.1], 1, "inconclusive"),  # +0.32 ± 0.39: narrow enough, but up to 0.71
    ],
)
def test_verdicts(values, contrasts, verdict):
    top1 = interval(values)
    (p,) = holm([top1.p], contrasts)
    assert Difference("arm", "other", len(values), 0, top1, None, p, None).verdict == verdict


def test_seeds_are_of_the_same_images_and_plugins(tmp_path, monkeypatch):
    plan = filled(tmp_path, (3, 4))
    monkeypatch.setattr(plugins, "_LOADED", {tmp_path / "a.py": {"file": "a.py", "sha256": "a" * 64}})
    for arm in PLAN["arms"]:  # alike within the pair
        change(plan, f"{arm}.seed4", data_sha256="f" * 64)
    with pytest.raises(ZooError, match=r"plain.seed3.json and plain.seed4.json were measured on other images"):
        render(plan)
    for sha256, refused in (("a" * 64, False), ("b" * 64, True)):
        filled(tmp_path, (3, 4))
        change(plan, "window.seed4", plugins=[{"file": "a.py", "sha256": sha256}])
        with pytest.raises(ZooError, match=r"made with a.py of sha256 bbb.*, now aaa") if refused else nullcontext():
            render(plan)


@pytest.mark.parametrize(
    ("window", "plain", "pairs"),
    [
        ({"train_precision": "bf16"}, {"train_precision": "fp32"}, False),
        ({"train_precision": "bf16", "machine": ANOTHER}, {"train_precision": "bf16"}, True),
        ({"machine": ANOTHER}, {"train_precision": "bf16"}, False),
        ({}, {"train_precision": "bf16"}, True),
    ],
)
def test_pairs_are_of_the_same_arithmetic(window, plain, pairs, tmp_path):
    """Of old results, which do not say, on the same processor."""
    plan = filled(tmp_path, [3])
    for arm, changes in (("window", window), ("plain", plain)):
        change(plan, f"{arm}.seed3", **changes)
    if pairs:
        assert len(differences(plan)) == 1
        assert (" and another." in page_of(plan)) == ("machine" in window)
    else:
        with pytest.raises(ZooError, match=r"window.seed3.json and plain.seed3.json were trained in other arithmetic"):
            differences(plan)


def test_arms_may_differ_in_their_precision(tmp_path):
    plan = filled(tmp_path, (3, 4), arms={"plain": {"amp": "off"}, "window": {"amp": "bf16"}})
    for seed in (3, 4):
        change(plan, f"plain.seed{seed}", train_precision="fp32")
        change(plan, f"window.seed{seed}", train_precision="bf16")
    assert "| window | plain | 2 |" in page_of(plan)


def test_a_run_has_the_plugins_of_its_recipe_and_of_the_command_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_LOADED", {})
    for name in ("mine", "other"):
        (tmp_path / f"{name}.py").write_text("")
    mine, other = (str(tmp_path / f"{name}.py") for name in ("mine", "other"))
    arms = {"plain": {}, "window": {"plugin": mine}, "last": {"plugin": [other]}}
    plan, asked = load_plan(write(tmp_path, arms=arms, seeds=[3])), {}
    for run in plan.runs:
        words = _start(run, tmp_path / "runs", ["all.py"], {}, lambda words, *_: words)
        asked[run.arm] = [Path(b).name for a, b in itertools.pairwise(words) if a == "--plugin"]
    assert asked == {"plain": ["all.py"], "window": ["all.py", "mine.py"], "last": ["all.py", "other.py"]}


@pytest.mark.parametrize("workers", [2, sys.maxsize])  # as many as a cluster has room for
def test_each_of_several_workers_has_a_gpu(workers, tmp_path, monkeypatch):
    plan, given = load_plan(write(tmp_path)), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    class Trained:
        returncode = 1

        def poll(self):
            return None if len(given) < 2 else 1

        wait = terminate = poll

    def start(run, work, plugins, environment, _):
        given.append(environment["LOCAL_RANK"])
        (work / f"{run.name}.log").parent.mkdir(exist_ok=True)
        (work / f"{run.name}.log").write_text("error: stopped\n")
        return Trained()

    monkeypatch.setattr("recipes.ablate._start", start)
    with pytest.raises(ZooError, match="runs failed"):
        ablate(plan, plan.runs, workers, tmp_path / "runs")
    assert given[:2] == ["0", "1"]
    assert set(given) == {"0", "1"}


def test_pairs_of_two_processors_are_counted_and_left_out_once(tmp_path):
    plan = filled(tmp_path, (3, 4, 5))
    for seed, top1 in ((3, 51.0), (4, 53.0), (5, 59.0)):
        change(plan, f"window.seed{seed}", top1=top1, train_precision="fp32")
        change(plan, f"plain.seed{seed}", train_precision="fp32")
    assert "two processors" not in page_of(plan)
    change(plan, "window.seed5", machine=ANOTHER)
    before, words, after = page_of(plan).partition("of two processors: 1 of window and plain.")
    assert words
    assert "| window | plain | 3 | +4.33 ±" in before
    assert "| window | plain | 2 | +2.00 ±" in after
    resumed = [{"commit": "1" * 40, "versions": {}, "machine": ANOTHER}]
    for seed, count in ((5, 1), (4, 2)):  # began elsewhere
        change(plan, f"plain.seed{seed}", resumed_with=resumed)
        assert f"of two processors: {count} of window and plain." in page_of(plan)


def test_runs_of_a_plan_start_from_the_same_weights(tmp_path):
    plan = filled(tmp_path, [3], recipe=PLAN["recipe"] | {"init": "runs/base"})
    before = {"name": "base", "epochs": 1, "train_seconds": 1.0, "recipe_sha256": None}
    for sha256, arm in (("a" * 64, "plain"), ("a" * 64, "window")):
        change(plan, f"{arm}.seed3", started_from=[before | {"weights_sha256": sha256}])
    differences(plan)
    change(plan, "window.seed3", started_from=[before | {"weights_sha256": "b" * 64}])
    with pytest.raises(ZooError, match=r"plain.seed3.json and window.seed3.json started from other weights"):
        differences(plan)


def test_p_values_are_corrected_for_their_number():
    """By hand: the smallest times their number, the next times one less, never below the one before, at most 1."""
    assert holm([0.03, None, 0.01, 0.02, 0.5], 4) == [pytest.approx(0.06), None, 0.04, pytest.approx(0.06), 0.5]
    assert holm([0.6, 0.7], 2) == [1.0, 1.0]
    assert holm([0.01], 3) == [0.03]
    assert holm([], 0) == []
    assert interval([2.0, 2.0]).p is None
    assert interval([0.0, 0.0]).p == 1  # the same run twice


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: [], "no result of an ablation: move it away"),
        (lambda r: accuracy(seed=3), "plan is missing"),
        (lambda r: r | {"recipe": r["recipe"] | {"lr": 7.0}}, "made with lr = 7.0, the plan says 0.1"),
    ],
)
def test_files_that_are_no_results(tmp_path, spoil, words):
    plan = load_plan(write(tmp_path))
    fill(plan, {"plain": {3: 50.0}}, {"plain": {3: 1.0}})
    file = plan.folder / "plain.seed3.json"
    file.write_text(json.dumps(spoil(json.loads(file.read_text()))))
    with pytest.raises(ZooError, match=words):
        render(plan)


def test_an_ablation_runs_and_finds_nothing_left_to_do(tmp_path):
    recipe = PLAN["recipe"] | {"model": "svgg11_w8", "train_images": 64, "batch_size": 32, "epochs": 2}
    file = write(tmp_path, seeds=[3], recipe=recipe)
    arguments = ("recipes.ablate", file, "--workers", "2", "--work-dir", str(tmp_path / "runs"), "--arms")
    assert_one_error(run_module(*arguments, "windo"), "did you mean window")
    part = run_module(*arguments, "window")
    assert part.returncode == 0, part.stderr
    assert [file.name for file in (tmp_path / "plan").glob("*.json")] == ["window.seed3.json"]
    result = json.loads((tmp_path / "plan" / "window.seed3.json").read_text())
    assert result["scaling"]["alpha"] == 0.9
    assert result["command"].startswith("python -m recipes.ablate plan.yaml")
    assert result["split"] == "test"
    assert str(tmp_path) not in json.dumps(result)
    log = tmp_path / "runs" / "plan" / "window.seed3" / "summary.csv"
    first, last = csv.DictReader(log.read_text().splitlines())
    assert result["train_loss"] == float(last["train_loss"]) != float(first["train_loss"])
    times = [file.stat().st_mtime_ns for file in sorted((tmp_path / "runs").rglob("*.safetensors"))]
    assert times
    again = run_module(*arguments, "window")
    assert again.returncode == 0, again.stderr
    assert times == [file.stat().st_mtime_ns for file in sorted((tmp_path / "runs").rglob("*.safetensors"))]


def test_an_ablation_looks_first_for_the_data_that_its_runs_take(tmp_path, monkeypatch):
    recipe = PLAN["recipe"] | {"dataset": "cifar10", "download": True, "slices": "time", "img_size": 16}
    plan, asked = load_plan(write(tmp_path, recipe=recipe)), []

    def load(**how):
        asked.append(how)
        raise ZooError("no network")

    monkeypatch.setattr("recipes.ablate.load_dataset", load)
    with pytest.raises(ZooError, match="no network"):
        ablate(plan, plan.runs, 1, tmp_path / "runs")
    assert asked == [plan.runs[0].recipe.data]


def test_runs_are_chosen_by_arm_seed_and_shard(tmp_path, capsys):
    plan = load_plan(write(tmp_path))
    shards = [chosen(plan, None, None, f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(run.name for shard in shards for run in shard) == sorted(run.name for run in plan.runs)
    assert [run.name for run in chosen(plan, ["window"], [5, 3], "2/2")] == ["window.seed5"]
    for arms, seeds, shard, words in [
        (["windo"], None, None, "arm of plan 'windo'; did you mean window"),
        (None, [6], None, "seed of plan.* 6 .*3, 4, 5"),
        *((None, None, wrong, f"--shard takes I/N.*'{wrong}'") for wrong in ("0/4", "5/4", "half")),
    ]:
        with pytest.raises(ZooError, match=words):
            chosen(plan, arms, seeds, shard)
    fill(plan, {"plain": {3: 50.0}}, {"plain": {3: 1.0}})
    with locked(tmp_path / "runs" / "window.seed3"):
        assert state_of(plan, plan.runs[0], tmp_path / "runs") == "done"
        assert state_of(plan, plan.runs[1], tmp_path / "runs") == "running"
        assert state_of(plan, plan.runs[2], tmp_path / "runs") == "open"


def test_a_run_that_another_command_trains_is_left_to_it(tmp_path, capsys):
    plan = load_plan(write(tmp_path, seeds=[3]))
    fill(plan, {"plain": {3: 50.0}}, {"plain": {3: 1.0}})
    with locked(tmp_path / "runs" / "window.seed3"):
        ablate(plan, plan.runs, 1, tmp_path / "runs")
    assert "1 runs are left to other commands: window.seed3" in capsys.readouterr().out
    assert (plan.folder / "README.md").is_file()


def test_why_a_run_failed_is_its_error_or_its_signal_and_last_lines(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("error: of before\n== started x\nline\ntrain: 1%\rtrain: 2%\n")
    assert _why(-9, log) == f"ended by SIGKILL, see {log}: x / line / train: 2%"
    assert _why(1, log).startswith("exit status 1")
    log.write_text("== started x\nerror: batch_size\n")
    assert _why(1, log) == "error: batch_size"
    log.unlink()
    assert "left no log" in _why(1, log)


def test_commands_that_start_and_keep_one_run_at_once_do_not_meet_in_its_files(tmp_path):
    plan, work = load_plan(write(tmp_path)), tmp_path / "runs"
    run = plan.runs[0]
    (work / run.name).mkdir(parents=True)
    (work / run.name / "summary.csv").write_text("train_loss\n1.0\n")
    (work / run.name / "result.json").write_text(json.dumps(accuracy(seed=run.seed)))

    def command(_):
        _start(run, work, (), {}, lambda *_: None)
        _keep(plan, run, work)

    with ThreadPoolExecutor(4) as commands:
        list(commands.map(command, range(40)))  # which raises what they raised
    assert plan.result_of(run)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # thirteen processes, each of which loads torch
def test_shards_that_start_at_once_run_each_run_once_and_end_with_one_page(tmp_path):
    recipe = PLAN["recipe"] | {"model": "svgg11_w8", "timesteps": 1, "train_images": 32, "batch_size": 16}
    recipe |= {"val_images": 16, "test": False}
    file = write(tmp_path, seeds=[3, 4, 5, 6], recipe=recipe)
    arguments = [sys.executable, "-m", "recipes.ablate", file, "--work-dir", str(tmp_path / "runs")]
    commands = [[*arguments, "--shard", f"{i}/4"] for i in (1, 2, 3, 4)] + [arguments]  # and one that wants all
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        told = process.communicate(timeout=1000)[1]
        assert (process.returncode, told.count("failed")) == (0, 0), told
    plan = load_plan(file)
    assert all(plan.result_of(run) for run in plan.runs)
    for run in plan.runs:
        log = (tmp_path / "runs" / "plan" / f"{run.name}.log").read_text()
        assert log.count(f"{run.recipe.model}.{run.recipe.tag} on 32 images") == 1
    render(plan, check=True)  # the page is that of all results


@pytest.mark.slow
def test_a_failing_run_is_named_and_the_others_are_kept(tmp_path):
    recipe = PLAN["recipe"] | {"train_images": 64, "batch_size": 32}
    arms = {"plain": {}, "huge": {"batch_size": 4096}}
    done = run_module("recipes.ablate", write(tmp_path, seeds=[3], recipe=recipe, arms=arms), "--work-dir",
                      str(tmp_path / "runs"))  # fmt: skip
    assert_one_error(done, "huge.seed3", "4096")
    assert (tmp_path / "plan" / "plain.seed3.json").exists()
    assert not (tmp_path / "plan" / "huge.seed3.json").exists()


@pytest.mark.parametrize("file", sorted(PLANS.glob("*.yaml")), ids=lambda f: f.stem)
@pytest.mark.usefixtures("registered_here_only")
def test_the_plans_of_the_project(file):
    plan = load_plan(str(file))
    dirty = {(arm, seed) for arm in plan.arms for seed, r in plan.results(arm).items() if "-dirty" in r["commit"]}
    # These were marked for the page of the plan alone, which had been rendered beside them: no change since then.
    pages = {(arm, seed) for arm in ("causal_trace_0.5", "causal_trace_0.1", "pre_pre_0.1") for seed in (702, 703, 704)}
    assert dirty <= (pages if plan.name == "claim_t2" else set())


def test_a_plan_of_the_project_has_a_name_and_the_path_that_results_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = load_plan("cpu_screening")
    assert plan.folder == PLANS / "cpu_screening"
    assert load_plan("recipes/ablations/cpu_screening.yaml") == plan
    with pytest.raises(ZooError, match="did you mean cpu_screening"):
        load_plan("cpu_screenin")
    with pytest.raises(ZooError, match="no such file"):
        load_plan("other/cpu_screening.yaml")
    (tmp_path / "cpu_screening.yaml").write_text(yaml.safe_dump(PLAN))
    assert load_plan("cpu_screening.yaml").arms == ["plain", "window"]  # a file here comes first


@pytest.mark.slow
@pytest.mark.parametrize("stop", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)])
def test_a_command_that_is_stopped_saves_its_runs(stop, tmp_path):
    """A terminal sends Ctrl-C to all of a group: the run must get it once, as twice is to stop at once. A cluster
    sends SIGTERM to the command alone."""
    write(tmp_path, recipe=PLAN["recipe"] | {"epochs": 500})
    arguments = [sys.executable, "-m", "recipes.ablate", str(tmp_path / "plan.yaml"), "--work-dir", str(tmp_path)]
    log = tmp_path / "plan" / "plain.seed3.log"
    listen = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # as it is in a terminal
    with subprocess.Popen(
        arguments, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL, preexec_fn=listen
    ) as process:
        try:
            for _ in range(600):
                if log.is_file() and "step/s" in log.read_text():
                    break
                time.sleep(0.1)
            else:
                pytest.fail("no step within a minute")
            stop(process.pid)
            assert process.wait(60) == 130
        finally:
            process.terminate()  # which takes the run along, where it is not over
    assert log.read_text().startswith("== started ")
    assert "stopped after step" in log.read_text()
    assert (tmp_path / "plan" / "plain.seed3" / "state.safetensors").is_file()
