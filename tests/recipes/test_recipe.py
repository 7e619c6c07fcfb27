"""Recipe files and their keys, and the augmentation that they name."""

from __future__ import annotations

import math
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from annotated_types import Ge, Le
from PIL import Image
from torchvision.transforms import functional as reference

from export.images import normalise as normalise_array
from recipes import augment
from recipes.lineage import create
from recipes.recipe import DEFAULTS, PLACE, Recipe, load_recipe, parse_command_line
from recipes.train import loss_of, one_hot
from zoo.data import load_dataset, normalise
from zoo.data.event_sets import image_events
from zoo.errors import ZooError

IMAGES = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_normalised_images_have_mean_0_and_deviation_1():
    data = load_dataset("digits")
    x = normalise(data.train_images, data.mean, data.std)
    assert x.mean().abs() < 1e-3
    assert (x.std() - 1).abs() < 1e-3


def test_normalised_alike_in_training_and_export():
    """Bit for bit, whatever the layout; what is float32 is normalised already."""
    pixels = np.arange(768, dtype=np.uint8).reshape(1, 3, 16, 16)[:, :, ::-1]
    mean, std = [0.4914, 0.4822, 0.4465], (0.247, 0.2435, 1)
    shift, scale = (np.float32(values).reshape(3, 1, 1) for values in (mean, std))
    expected = (pixels.astype(np.float32) / np.float32(255) - shift) / scale
    tensor = torch.from_numpy(pixels.copy())
    assert np.array_equal(normalise(tensor, mean, std), expected)
    assert np.array_equal(normalise_array(pixels, mean, std), expected)
    assert np.array_equal(normalise_array(expected, mean, std), expected)
    assert tensor.numpy().tobytes() == pixels.tobytes()


def test_crop_and_flip_are_drawn_per_image():
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


def test_frames_whose_steps_have_a_direction_are_mirrored_as_their_images_would_be():
    data = load_dataset("i2e:digits")
    frames, mirrored = image_events(IMAGES), image_events(IMAGES.flip(3))
    assert not torch.equal(frames.flip(4), mirrored)
    out = augment.random_flip(frames.flatten(1, 2), data.mirrored).unflatten(1, (8, 2))
    kept = [torch.equal(x, frame) for x, frame in zip(out, frames, strict=True)]
    turned = [torch.equal(x, frame) for x, frame in zip(out, mirrored, strict=True)]
    assert 16 < sum(kept) < 48
    assert sum(kept) + sum(turned) == 64


def test_cutout_is_a_square():
    holes = augment.cutout(torch.ones(200, 3, 32, 32), 8) == 0
    sizes = holes[:, 0].flatten(1).sum(1)
    assert sizes.max() == 64
    assert sizes.min() >= 16  # clipped at a corner
    assert torch.equal(holes[:, 0], holes[:, 2])


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


@pytest.mark.parametrize("name", augment._WARPS)
def test_what_warps_images_is_torchvision_s(name):
    for level in (-1.0, 4 / 9, 1.0):
        for images in (IMAGES, IMAGES[..., 5:]):
            assert torch.equal(augment._OPS[name][0](images, level), augment._WARPS[name](images, level))


def test_auto_augment_applies_the_policy_of_the_paper(monkeypatch):
    """Each pair of operations alike often, each of the two with its own probability."""
    drawn = []
    monkeypatch.setattr(augment, "_apply", lambda images, *draw: drawn.append(draw) or images)
    count, policies = 50_000, augment._POLICIES
    augment.auto_augment(torch.zeros(count, 1, 1, 1), "autoaugment", 1, 9)
    assert len(drawn) == 2
    for position, (choice, operations) in enumerate(drawn):
        names, probabilities, levels = zip(*(policy[position] for policy in policies), strict=True)
        assert operations[:-1] == [(name, (level or 0) / 9) for name, level in zip(names, levels, strict=True)]
        assert operations[-1] == ("Identity", 0)
        used = choice.bincount(minlength=len(operations))[: len(policies)] * len(policies) / count
        assert used.tolist() == pytest.approx(list(probabilities), abs=0.06)


def test_rand_augment_takes_its_number_and_strength_from_the_recipe(monkeypatch):
    levels = []
    monkeypatch.setattr(
        augment, "_apply", lambda images, _, operations: levels.append({level for _, level in operations}) or images
    )
    recipe = Recipe(crop=0, hflip=False, auto_augment="randaugment", randaugment_ops=2, randaugment_magnitude=15)
    augment.augmented(IMAGES, recipe, load_dataset("digits"))
    assert levels == [{0.5}, {0.5}]


def test_losses_are_those_of_the_papers():
    """Of logits of two time steps, three images of a class each, and four classes, a fifth spread over all."""
    logits = torch.randn(2, 3, 4)
    target = torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]])
    torch.testing.assert_close(one_hot(torch.tensor([2, 0, 1]), 4, 0.2), target)

    def cross_entropy(logits):
        return sum(-(target[i] * logits[i].log_softmax(0)).sum() for i in range(3)) / 3

    torch.testing.assert_close(loss_of(logits, target, Recipe()), cross_entropy(logits.mean(0)))
    towards_1 = ((logits - 1) ** 2).mean()
    tet = 0.7 * (cross_entropy(logits[0]) + cross_entropy(logits[1])) / 2 + 0.3 * towards_1
    torch.testing.assert_close(loss_of(logits, target, Recipe(loss="tet", tet_lambda=0.3)), tet)


def test_a_data_set_of_a_folder_goes_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in ("flowers", "./flowers", "some/where/flowers", "/some/where/flowers", "../flowers/"):
        for kind in ("folder", "events", "i2e:folder"):
            assert Recipe(dataset=f"{kind}:{path}").settings["dataset"] == f"{kind}:flowers"


def test_settings_name_no_folder():
    """They go into a checkpoint and to a Hub: enough to repeat the run, but not where it was."""
    recipe = Recipe(plugin="/somewhere/mine.py", init="/somewhere/else", data_dir="/somewhere", out="/somewhere/x")
    assert "somewhere" not in str(recipe.settings)
    assert (recipe.settings["plugin"], recipe.settings["init"]) == ("mine.py", "else")


def test_recipes_of_the_package_are_named_by_what_they_train():
    from recipes.recipe import _HERE

    for_many = {"quickstart", "families.t4_cifar10"}
    files = sorted(file for file in _HERE.glob("*.yaml") if file.stem not in for_many)
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
    words = ["--out", "runs/a #1", "--tag", "2024", "--comparison", "yes", "--init", "x: y", "--data-dir", "null"]
    recipe = parse_command_line([str(file), *words])
    assert (recipe.out, recipe.tag, recipe.comparison) == ("runs/a #1", "2024", "yes")
    assert (recipe.init, recipe.data_dir) == ("x: y", None)
    file.write_text("tag: true\n")
    with pytest.raises(ZooError, match=r"recipe key tag.* string, not True"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochz: 3", "epochz.*epochs"),
        ("epochs: many", "epochs.*'many'"),
        ("{lr: 0.001, min_lr: 0.01}", "min_lr must not be above lr, 0.001, but is 0.01"),
        ("tag: .v2", "tag .*'.v2'"),
        (f"tag: {101 * 'a'}", "tag .*at most 100"),
        ("hflip: 1", "hflip"),
        ("2: x", "unknown recipe key '2'"),
        ("- a\n- b", "key: value"),
        ("a: [", "YAML"),
    ],
)
def test_bad_recipes_are_named(text, words, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(ZooError, match=words):
        load_recipe(str(file))


def test_a_key_says_its_range_choices_and_place_once():
    settings = Recipe(data_dir="x", resume=True, plugin="p.py").settings
    assert settings.keys() == DEFAULTS.keys() - PLACE | {"plugin"}
    for name, field in Recipe.model_fields.items():
        assert field.description, name
        if get_origin(field.annotation) is Literal:
            assert field.default in get_args(field.annotation)
        elif field.annotation in (int, float):
            assert {type(limit) for limit in field.metadata} >= {Ge, Le}, name
            for wrong in (math.nan, True, 10**400):
                with pytest.raises(ZooError, match=f"recipe key {name}: input should be"):
                    Recipe(**{name: wrong})


def test_defaults_follow_from_the_rest():
    recipe = Recipe(model="sresnet19_w16", dataset="digits", timesteps=3, seed=5)
    assert (recipe.tag, recipe.out) == ("t3_digits", "runs/sresnet19_w16.t3_digits-seed5")


def test_a_network_keeps_its_own_neurons_unless_the_recipe_says():
    data = load_dataset("digits")
    own = create(Recipe(model="spikformer_2_64", dataset="digits"), data, {})
    assert own.model_args["neuron"]["tau"] == 2.0
    said = create(Recipe(model="spikformer_2_64", dataset="digits", neuron="if", surrogate="arctan"), data, {})
    assert (said.model_args["neuron"], said.model_args["surrogate"]) == ("if", "arctan")
