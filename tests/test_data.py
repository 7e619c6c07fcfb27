"""Data sets, augmentation, recipe files."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from recipes import augment
from recipes.config import DEFAULTS, PLACE, Recipe, load_recipe, parse_command_line
from recipes.train import _create
from zoo.data import load_dataset, split
from zoo.errors import ZooError


def test_digits_need_no_files():
    data = load_dataset("digits")
    assert data.train_images.shape[1:] == (3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert len(data.train_images) + len(data.test_images) == 1797
    assert torch.bincount(data.test_labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert data.sha256 == load_dataset("digits").sha256
    x = augment.normalise(data.train_images, data.mean, data.std)
    assert x.mean().abs() < 1e-3
    assert (x.std() - 1).abs() < 1e-3


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(name, classes, data_root):
    data = load_dataset(name, data_root)
    assert data.train_images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(data.test_labels).tolist() == [10_000 // classes] * classes
    assert len(data.classes) == classes
    published = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}[name]
    assert data.mean == pytest.approx(published, abs=2e-4)


def test_bad_data_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SNNZOO_DATA", raising=False)
    with pytest.raises(ZooError, match="cifar100"):
        load_dataset("cifar1000")
    with pytest.raises(ZooError, match="--data-dir"):
        load_dataset("cifar10")
    with pytest.raises(ZooError, match="cifar-10-batches-py"):
        load_dataset("cifar10", str(tmp_path))


def test_split_is_disjoint_and_fixed():
    data = load_dataset("digits")
    train, val = split(data, 0, 200)
    assert len(val) == 200
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(data.train_images)))
    few, same = split(data, 100, 200)
    assert torch.equal(val, same)
    assert set(few.tolist()) <= set(train.tolist())
    with pytest.raises(ZooError, match="1437 training images"):
        split(data, 1400, 200)


IMAGES = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_crop_and_flip_are_drawn_an_image():
    out = augment.random_crop(IMAGES, 4)
    padded = torch.nn.functional.pad(IMAGES, [4] * 4)
    places = []
    for i in range(64):
        found = [
            (y, x) for y in range(9) for x in range(9) if torch.equal(padded[i, :, y : y + 32, x : x + 32], out[i])
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 30
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(augment.random_flip(IMAGES), IMAGES, strict=True)]
    assert 16 < sum(flipped) < 48


def test_cutout_is_a_square():
    holes = augment.cutout(torch.ones(200, 3, 32, 32), 8) == 0
    sizes = holes[:, 0].flatten(1).sum(1)
    assert sizes.max() == 64
    assert sizes.min() >= 16  # clipped at a corner
    assert torch.equal(holes[:, 0], holes[:, 2])


@pytest.mark.parametrize("kind", ["autoaugment", "randaugment"])
def test_auto_augment_draws_an_image(kind):
    one = IMAGES[:1].expand(200, -1, -1, -1)
    out = augment.auto_augment(one, kind, ops=2, magnitude=9)
    assert out.dtype == torch.uint8
    assert out.shape == one.shape
    assert len({o.numpy().tobytes() for o in out}) > 20
    assert torch.equal(augment.auto_augment(IMAGES, "none", 2, 9), IMAGES)


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("Invert", 0.0, lambda p: reference.invert(p)),
        ("Solarize", 0.5, lambda p: reference.solarize(p, 127.5)),
        ("Posterize", 0.5, lambda p: reference.posterize(p, 6)),
        ("Rotate", 1.0, lambda p: reference.rotate(p, 30)),
        ("Equalize", 0.0, lambda p: reference.equalize(p)),
    ],
)
def test_operations_equal_torchvision_on_pillow(name, level, expected):
    picture = Image.fromarray(np.ascontiguousarray(IMAGES[0].permute(1, 2, 0)))
    ours = augment._OPS[name][0](IMAGES[:1], level)[0].permute(1, 2, 0)
    same = torch.as_tensor(np.array(expected(picture))) == ours
    assert same.float().mean() > 0.98  # rotation rounds some borders otherwise


def test_recipes_of_the_package_are_named_by_what_they_train():
    from recipes.config import _HERE

    files = sorted(file for file in _HERE.glob("*.yaml") if file.stem != "quickstart")
    assert files
    for file in files:
        recipe = load_recipe(str(file))
        assert file.stem == f"{recipe.model}.{recipe.tag}"


def test_values_from_yaml_and_command_line(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("lr: 5e-4\namp: off\nneuron: {name: lif, decay: 0.25}\nepochs: 7\n")
    recipe = parse_command_line([str(file), "--epochs", "2", "--scaling", "null", "--resume"])
    assert (recipe.lr, recipe.amp, recipe.epochs, recipe.scaling, recipe.resume) == (5e-4, "off", 2, None, True)
    assert recipe.neuron == {"name": "lif", "decay": 0.25}
    assert parse_command_line([str(file), "--batch-size", "32"]).batch_size == 32
    assert parse_command_line([str(file), "--batch_size", "32"]).batch_size == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochz: 3", "epochz.*epochs"),
        ("epochs: many", "epochs.*'many'"),
        ("epochs: 0", "epochs must be 1 or more"),
        ("timesteps: 0", "timesteps must be 1 or more"),
        ("lr: -1", "lr must be 0 or more"),
        ("lr: .inf", "lr"),
        ("randaugment_magnitude: 40", "40"),
        ("lr: .nan", "lr"),
        ("optimizer: lamb", "lamb"),
        ("amp: fp8", "fp8"),
        ("label_smoothing: 2", "label_smoothing"),
        ("hflip: 1", "hflip"),
        ("- a\n- b", "key: value"),
        ("a: [", "YAML"),
        ("tag: a/b", "tag"),
    ],
)
def test_bad_recipes_are_named(text, words, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(ZooError, match=words):
        load_recipe(str(file))


def test_a_key_says_its_range_choices_and_place_once():
    settings = Recipe(data_dir="x", resume=True, plugin="p.py").settings
    assert settings.keys() == DEFAULTS.keys() - PLACE
    for key in dataclasses.fields(Recipe):
        if choices := key.metadata["choices"]:
            assert key.default in choices
            with pytest.raises(ZooError, match=f"recipe key {key.name} 'nosuch'"):
                Recipe(**{key.name: "nosuch"})
        elif key.type in ("int", "float"):
            low, high = key.metadata["low"], key.metadata["high"]
            with pytest.raises(ZooError, match=f"recipe key {key.name} must be {low} or more, not {low - 1}"):
                Recipe(**{key.name: low - 1})
            if high < math.inf:
                with pytest.raises(ZooError, match=rf"recipe key {key.name} must lie in \[0, {high}\], not {high + 1}"):
                    Recipe(**{key.name: high + 1})


def test_unknown_recipe_and_option():
    with pytest.raises(ZooError, match=r"sresnet19_gs\.t4_cifar10"):
        load_recipe("sresnet19_gs.t4_cifar11")
    with pytest.raises(ZooError, match="--epochz"):
        parse_command_line(["sresnet19_gs.t4_cifar10", "--epochz", "3"])


def test_defaults_follow_from_the_rest():
    recipe = Recipe(model="sresnet19_w16", dataset="digits", timesteps=3, seed=5)
    assert (recipe.tag, recipe.out) == ("t3_digits", "runs/sresnet19_w16.t3_digits-seed5")


def test_a_network_keeps_its_own_neurons_unless_the_recipe_says():
    data = load_dataset("digits")
    own = _create(Recipe(model="spikformer_2_64", dataset="digits"), data)
    assert own.model_args["neuron"]["tau"] == 2.0
    said = _create(Recipe(model="spikformer_2_64", dataset="digits", neuron="if", surrogate="arctan"), data)
    assert (said.model_args["neuron"], said.model_args["surrogate"]) == ("if", "arctan")
