"""What users bring: a file of theirs goes through every command; every example runs; what is wrong with one is said."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from conftest import ROOT, accuracy, assert_one_error, run_code
from hub_client import loopback
from minihub import TOKEN
from PIL import Image
from torch import nn

import zoo
from zoo.errors import ZooError
from zoo.files import read_json
from zoo.layers import ConvNeuron
from zoo.neurons import create_neuron
from zoo.result import check

EXAMPLES = sorted((ROOT / "recipes" / "examples").glob("*.py"))
SNN_ZOO = "import sys; sys.argv = ['snn-zoo', *{words}]; from snn_zoo import main; main()"
SMALL = ["--train-images", "96", "--batch-size", "32", "--epochs", "1", "--timesteps", "2"]

# Runs a command that dies in its third step, as if the machine were taken away.
KILLED = """
import os
from recipes.train import Trainer

def check_or_die(trainer, loss=None, **how):
    if trainer.state.step == 3:
        os._exit(9)
    check(trainer, loss, **how)

check, Trainer._check_finite = Trainer._check_finite, check_or_die
{command}
"""


def command_of(example):
    """The line of an example's docstring that runs it."""
    text = example.read_text().split('"""')[1].replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("snn-zoo ")]
    return shlex.split(line)[1:]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_runs_as_it_says(example, tmp_path):
    copied = tmp_path / example.relative_to(ROOT)
    copied.parent.mkdir(parents=True)
    copied.write_text(example.read_text())
    words = [*command_of(example), *SMALL, "--val-images", "32", "--test", "false", "--out", "run"]
    done = run_code(SNN_ZOO.format(words=words), tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "run" / "result.json")
    assert [plugin["file"] for plugin in result["plugins"]] == [example.name]
    assert result["plugins"] == read_json(tmp_path / "run" / "config.json")["plugins"]
    assert result["command"].startswith(f"snn-zoo train quickstart --plugin recipes/examples/{example.name} ")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the file of a user, whose commands run there, in front of the loopback Hub."""
    folder = tmp_path_factory.mktemp("own")
    text = (ROOT / "recipes" / "examples" / "everything.py").read_text()
    assert len(text.splitlines()) <= 70
    (folder / "own.py").write_text(text)
    Image.new("RGB", (32, 32)).save(folder / "x.png")
    # Of the user's own, and none of the command's business.
    for name in ("export.py", "zoo.py", "leaderboard.py", "recipes/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('a file of the user, not of the zoo')")
    return folder


def snn_zoo(folder, *words, plugin=("--plugin", "own.py"), code="{command}"):
    """`snn-zoo WORDS` in a process of its own."""
    command = SNN_ZOO.format(words=[*words, *plugin])
    done = loopback()[1].run(code.format(command=command), cwd=folder, token=TOKEN)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def ran(folder, *words, **options):
    done = snn_zoo(folder, *words, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


OWN = ["--model", "own_net", "--neuron", "{name: adaptive, decay: 0.6}", "--surrogate", "own_bump"]
OWN += ["--scaling", "{name: own_rule, alpha: 0.5}", "--out", "run", "--checkpoint-minutes", "0"]
OWN += [*SMALL, "--train-images", "160", "--epochs", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def trained(own):
    """The run directory: trained, killed in the middle of an epoch, resumed with a file that has another comment."""
    assert snn_zoo(own, "train", "quickstart", *OWN, code=KILLED).returncode == 9
    assert not (own / "run" / "result.json").exists()
    (own / "own.py").write_text((own / "own.py").read_text() + "# resumed\n")
    resumed = snn_zoo(own, "train", "quickstart", *OWN, "--resume")
    assert "top-1" in resumed.stdout, resumed.stderr
    assert resumed.stderr.count("warning: the plugin own.py has changed since run was made with it") == 1
    return own / "run"


def test_a_run_of_ones_own_is_killed_and_resumed(trained):
    result, config = (read_json(trained / name) for name in ("result.json", "config.json"))
    assert result["scaling"]["name"] == "own_rule"
    assert result["command"].startswith("snn-zoo train quickstart --model own_net")
    assert config["model_args"]["neuron"] == {"name": "adaptive", "decay": 0.6}
    assert config["model_args"]["surrogate"] == "own_bump"
    before, now = result["plugins"]
    assert before["file"] == now["file"] == "own.py"
    assert config["plugins"] == [now] != [before]


def test_it_is_validated_and_predicts(own, trained):
    ran(own, "validate", "run", "--dataset", "digits", "--limit", "100", "--json", "validated.json")
    validated = read_json(own / "validated.json")
    assert validated["plugins"] == read_json(trained / "config.json")["plugins"]
    assert validated["scaling"]["name"] == "own_rule"
    assert "x.png" in ran(own, "predict", "run", "x.png")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_exported_measured_filed_published_and_loaded(own, trained):
    for form in (["--layout", "step"], ["--precision", "int8"], []):
        exported = ran(own, "export", "run", "-o", "own.onnx", "--data", "digits", "--limit", "64", *form)
        assert " neuron layers identical to " in exported
    measured = ["--data", "digits", "--limit", "64", "--runs", "3", "--json", "onnx.json"]
    assert "spikes per image" in ran(own, "bench-ort", "own.onnx", *measured)
    results = ["run/result.json", "onnx.json"]
    board = ran(own, "leaderboard", "add", *results, "--results", "results", "--out", "board", "--readme", "none")
    assert "1 row from 2 result files" in board
    ran(own, "push", "run", "--repo", "me/own_net", "--onnx", "own.onnx", "--result", "onnx.json")
    ran(own, "pull", "me/own_net", "-o", "pulled")
    again = ran(own, "validate", "pulled", "--dataset", "digits", "--limit", "100")
    loaded = ran(own, "validate", "hf-hub:me/own_net", "--dataset", "digits", "--limit", "100")
    assert json.loads(again)["top1"] == json.loads(loaded)["top1"]
    assert "own.py" in (own / "pulled" / "README.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["validate", "run", "--dataset", "digits"],
        ["predict", "run", "x.png"],
        ["export", "run", "-o", "never.onnx"],
        ["push", "run", "--repo", "me/x"],
    ],
    ids=lambda words: words[0],
)
def test_without_its_plugin_one_line_names_it(words, own, trained):
    assert_one_error(snn_zoo(own, *words, plugin=()), "own.py", "--plugin own.py")
    assert not (own / "never.onnx").exists()


def test_a_plugin_that_changed_is_one_warning(own, trained, tmp_path):
    (tmp_path / "own.py").write_text((own / "own.py").read_text() + "# changed\n")
    words = ["validate", "run", "--dataset", "digits", "--limit", "10", "--json", "other.json"]
    done = snn_zoo(own, *words, plugin=("--plugin", str(tmp_path / "own.py")))
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "own.py" in line]
    assert warning.startswith("warning: the plugin own.py has changed since ")
    recorded = [read_json(file)["plugins"][0] for file in (own / "other.json", trained / "config.json")]
    assert recorded[0]["file"] == recorded[1]["file"]
    assert recorded[0]["sha256"] != recorded[1]["sha256"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_ablation_hands_its_plugins_to_its_runs(own):
    """In processes of their own, which the user's recipes/ does not mislead."""
    recipe = {"model": "own_net", "neuron": "adaptive", "dataset": "digits", "timesteps": 2, "epochs": 1, "amp": "off"}
    arms = {"plain": {"scaling": "none"}, "own": {"scaling": "own_rule"}}
    plan = {"seeds": [1, 2], "recipe": recipe | {"train_images": 64, "batch_size": 32}, "arms": arms}
    (own / "plan.yaml").write_text(json.dumps(plan))
    ran(own, "ablate", "plan.yaml")
    assert "| own | plain | 2 |" in (own / "plan" / "README.md").read_text()
    result = read_json(own / "plan" / "own.seed1.json")
    assert [plugin["file"] for plugin in result["plugins"]] == ["own.py"]
    assert result["command"] == "snn-zoo ablate plan.yaml --plugin own.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "own_net*"], "own_net_gs"),
        (["info", "own_net"], "A network of one's own."),
        (["info", "own_rule"], "the coincidences of traces before with potentials"),
        (["bench", "step", "--model", "own_net", "--surrogate", "own_bump", "--batch", "2", "--runs", "1"], "own_net"),
        (["health", "own_net", "--dataset", "digits", "--steps", "4", "--batch", "8"], "own_net: loss"),
    ],
    ids=lambda words: words[0],
)
def test_other_commands_know_them_too(words, said, own):
    assert said in snn_zoo(own, *words).stdout


PLUGIN = "import zoo\nfrom zoo.models.sresnet import SResNet\nshape = {'depths': (1,), 'widths': (8,), 'stem': 4}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zoo.register_family(SResNet, [zoo.Variant('sresnet19', 'x', shape)])", "'sresnet19' already names a model"),
        ("zoo.register_family(SResNet, [zoo.Variant('resnet18', 'x', shape)])", "'resnet18' already names a timm"),
        ("zoo.register_scaling('final_trace')(print)", "scaling 'final_trace' is already registered"),
        ("def helper():\n    raise SystemExit('x')\nhelper()", "fails in line 5: SystemExit"),
        ("def", "fails in line 4: SyntaxError"),
        ("zoo.register_family(SResNet, [zoo.Variant('größe', 'x', shape)])", "'größe' is no name for a network"),
        ("\0", "fails: "),
    ],
)
def test_a_plugin_that_cannot_be_is_one_error(text, words, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN + text)
    assert_one_error(run_code(SNN_ZOO.format(words=["list", "--plugin", "mine.py"]), tmp_path), words)


def test_plugins_run_once_and_are_told_apart_by_their_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        text = f"zoo.register_family(SResNet, [zoo.Variant('net_{folder}', 'x', shape)])"
        (tmp_path / folder / "my-net.py").write_text(PLUGIN + text)
    code = """
import os, zoo
from zoo.plugins import loaded_plugins
assert loaded_plugins() is None
for path in ("a/my-net.py", "b/my-net.py", os.path.abspath("a/my-net.py"), "b/../b/my-net.py"):
    zoo.load_plugin(path)
assert [plugin["file"] for plugin in loaded_plugins()] == ["my-net.py"] * 2
assert len({plugin["sha256"] for plugin in loaded_plugins()}) == 2
assert zoo.create_model("net_a").pretrained_cfg["architecture"] == "net_a" and zoo.is_model("net_b")
"""
    done = run_code(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("__pycache__"))


PARTS = """
import zoo
@zoo.register_neuron("twin")
class Twin(zoo.SpikingNeuron):
    def step(self, x_t, state=None):
        return self.surrogate.spike(x_t - LEVEL), None
zoo.register_surrogate("twin")(lambda x, width: x.abs() < width)
zoo.register_scaling("twin")(lambda spikes, alpha: spikes.pre)
zoo.register_dataset("twin", lambda root: None)
"""


def test_a_plugin_that_has_changed_is_run_again_and_no_other_takes_its_names(tmp_path, registered_here_only):
    mine = tmp_path / "mine.py"
    for level, spikes in ((1, 1), (2, 0)):
        mine.write_text(PARTS.replace("LEVEL", str(level)))
        zoo.load_plugin(mine)
        assert create_neuron("twin", 1)(torch.tensor([1.5])).item() == spikes
    for kind, part in {
        "neuron": "('twin')(type('Twin', (zoo.SpikingNeuron,), {'step': print, '__module__': __name__}))",
        "surrogate": "('twin')(lambda x, width: x)",
        "scaling": "('twin')(lambda spikes, alpha: 1)",
        "dataset": "('twin', lambda root: 1)",
    }.items():
        (tmp_path / "other.py").write_text(f"import zoo\nzoo.register_{kind}{part}")
        with pytest.raises(ZooError, match="'twin' is already registered"):
            zoo.load_plugin(tmp_path / "other.py")


class Wide(zoo.SpikingNetwork):
    def __init__(self, width, *, twice=False, **kwargs):
        super().__init__(**kwargs)
        self.make_stem(width)
        self.twice = twice
        self.add_stage(nn.Sequential(ConvNeuron(width, width, self.make, 3)), width, 1)
        self.finish()

    def forward_pre_logits(self, x):
        return super().forward_pre_logits(x) * (2 if self.twice else 1)


def test_a_networks_own_keywords_come_back_with_its_checkpoint(tmp_path, registered_here_only):
    zoo.register_family(Wide, [zoo.Variant("own_wide", "One of one's own.", {"width": 8})])
    model = zoo.create_model("own_wide", twice=True).eval()
    assert model.model_args["twice"] is True
    assert "width" not in model.model_args  # nobody may change it
    zoo.save_checkpoint(tmp_path / "x", model, tag="t4_test", data_cfg={})
    x, again = torch.rand(2, 3, 32, 32), zoo.load(tmp_path / "x")
    assert torch.equal(again(x), model(x))
    assert again.weights_sha256
    assert zoo.load(tmp_path / "x", twice=False).weights_sha256 is None


def test_what_a_record_says_of_plugins_is_checked():
    good = [{"file": "own.py", "sha256": "a" * 64}]
    for plugins in (None, good, good * 2):
        assert check(accuracy(plugins=plugins), "x")
    assert check(accuracy(), "x")  # of before there were any
    for plugins in ([], [{"file": "own.py"}], [good[0] | {"file": "../own.py"}], [good[0] | {"file": "\x1b[31m"}],
                    [good[0] | {"sha256": "a"}], good * 1000):  # fmt: skip
        with pytest.raises(ZooError, match=r"x:? plugins"):
            check(accuracy(plugins=plugins), "x")
