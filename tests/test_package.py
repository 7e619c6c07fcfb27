"""What the built wheel carries, used without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from zoo.names import NOT_IN_WHEEL


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built and unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("snn_zoo-*.whl")
    assert wheel.stat().st_size < 90_000_000
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_wheel_carries_recipes_and_weights(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert {"recipes/cifar10.sh", "recipes/sresnet19_gs.t4_cifar10.yaml"} <= names
    assert {"zoo/kernels/lif.cpp", "snn_zoo.py", "recipes/ablate.py", "recipes/bench.py"} <= names
    bundled = {path.name for path in (ROOT / "zoo" / "weights").iterdir() if path.is_dir()}
    assert bundled > set(NOT_IN_WHEEL)
    for name in bundled.difference(NOT_IN_WHEEL):
        assert {f"zoo/weights/{name}/model.safetensors", f"zoo/weights/{name}/config.json"} <= names
    assert not [name for name in names if name.startswith(tuple(f"zoo/weights/{name}/" for name in NOT_IN_WHEEL))]
    assert not [name for name in names if "/studies/" in name]
    assert not [name for name in names if name.startswith(("tests/", "leaderboard/results/", "export/reports"))]
    assert not [name for name in names if name.startswith("recipes/") and name.endswith((".json", ".svg"))]


def test_wheel_works_without_the_repository(installed, tmp_path):
    code = (
        "import zoo, recipes, export, leaderboard, torch\n"
        "assert '{site}' in zoo.__file__\n"
        "for name in ('sresnet19_w16_gs.t2_cifar10', 'svgg11_w16.t4_cifar10'):\n"
        "    print(name, zoo.create_model(name, pretrained=True).eval()(torch.zeros(1, 3, 32, 32)).shape)\n"
        "try: zoo.load('sresnet19_gs.t4_cifar100')\n"
        "except zoo.ZooError as error: print(error)\n"
        "print(recipes.load_recipe('sresnet19_gs.t4_cifar10').model)\n"
    ).replace("{site}", str(installed))
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "sresnet19_w16_gs.t2_cifar10" in done.stdout
    assert "sresnet19_gs\n" in done.stdout
    assert "sresnet19_gs.t4_cifar100 is too large for the wheel; a checkout has it" in done.stdout


def test_public_names_exist():
    import export
    import recipes
    import zoo

    for package in (zoo, recipes, export):
        for name in package.__all__:
            assert hasattr(package, name), (package.__name__, name)


def test_packages_load_where_modules_of_unix_are_missing():
    """On Windows: what only reads works there, too."""
    code = "import sys; sys.modules |= dict.fromkeys(('fcntl', 'resource')); import zoo, recipes.predict, export"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
