"""Event-camera data sets: synthetic files in the layouts of the real ones, images turned to events, training."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import make_pictures
from test_events import aedat2_bytes, aedat3_bytes, bin_bytes, recording

import zoo
from export.__main__ import main as export
from export.bench import benchmark, read_file
from export.early_exit import main as early_exit
from export.event_stream import follow
from export.event_stream import main as event_stream
from export.images import load_images
from export.run import Runner, Stream, read_model
from recipes.finetune import recipe_for
from recipes.predict import predict
from recipes.recipe import Recipe, load_recipe
from recipes.train import train
from recipes.validate import validate
from zoo.data import dataset
from zoo.data.dataset import cached
from zoo.data.event_sets import image_events, load_i2e
from zoo.data.events import Events, frames_as_they_come, read_events, to_frames
from zoo.errors import ZooError
from zoo.names import OWN_DATASETS


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of frames, for each test anew; kernels are not built again."""
    monkeypatch.setattr(dataset, "cache_folder", lambda kind: tmp_path / "cache" / kind)
    return tmp_path / "cache" / "frames"


def moving(label: int, seed: int, sensor: tuple[int, int]) -> Events:
    """A dot that goes to the right (0) or down (1) over the sensor in 1000 events, brighter ahead."""
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, 100_000, 1000))
    along = (t * (sensor[1 - label] - 6) // 100_000 + random.integers(0, 6, 1000)).astype(np.int16)
    across = random.integers(sensor[label] // 2 - 4, sensor[label] // 2 + 4, 1000).astype(np.int16)
    x, y = (along, across) if label == 0 else (across, along)
    return Events(t, x, y, random.random(1000) < 0.7)


def nmnist(root: Path, per_class: int = 12) -> Path:
    for part, count in (("Train", per_class), ("Test", 4)):
        for label in (0, 1):
            folder = root / part / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:05}.bin").write_bytes(bin_bytes(moving(label, 10 * i + len(part), (34, 34))))
    return root


def gesture(root: Path, count: int = 6) -> Path:
    """Two recordings of gestures 1 and 2 by turns, a tenth of a second each, with pauses of as long between them."""
    root.mkdir()
    for user, part in ((1, "train"), (24, "test")):
        parts, lines = [], ["class,startTime_usec,endTime_usec"]
        for i in range(count):
            begin = 200_000 * i
            parts += [moving(i % 2, 100 * user + i, (128, 128))]
            parts[-1] = parts[-1]._replace(t=parts[-1].t + begin)
            pause = recording(50, i, (128, 128), 100_000)
            parts += [pause._replace(t=pause.t + begin + 100_000)]
            lines += [f"{i % 2 + 1},{begin},{begin + 100_000}"]
        whole = Events(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        (root / f"user{user:02}_led.aedat").write_bytes(aedat3_bytes(whole))
        (root / f"user{user:02}_led_labels.csv").write_text("\n".join(lines) + "\n")
        (root / f"trials_to_{part}.txt").write_text(f"user{user:02}_led.aedat\n\n")
    return root


def cifar10dvs(root: Path, per_class: int = 11) -> Path:
    for label, name in enumerate(("airplane", "bird")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            file = root / name / f"cifar10_{name}_{i}.aedat"
            file.write_bytes(aedat2_bytes(moving(label, i, (128, 128))))
    return root


def test_nmnist_is_read_from_its_folders(tmp_path):
    root = nmnist(tmp_path / "n")
    data = zoo.load_dataset(f"nmnist:{root}", timesteps=3)
    assert (data.name, data.classes, data.timesteps, data.input_size) == ("nmnist", ["0", "1"], 3, (2, 34, 34))
    assert data.train_images.shape == (24, 3, 2, 34, 34)
    files = [root / part / str(label) / f"{i:05}.bin" for part, count in (("Train", 12), ("Test", 4))
             for label in (0, 1) for i in range(count)]  # fmt: skip
    order = [torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist() for count in (24, 8)]
    assert data.test_labels.tolist() == [i // 4 for i in order[1]]
    assert data.test_labels[:4].unique().tolist() == data.train_labels[:8].unique().tolist() == [0, 1]
    for place in (0, 5):
        recorded = read_events(files[order[0][place]], (34, 34))
        assert np.array_equal(data.train_images[place], to_frames(recorded, (34, 34), 3))
    again = zoo.load_dataset(f"nmnist:{root}", timesteps=3)
    assert again.sha256 == data.sha256
    smaller = zoo.load_dataset(f"nmnist:{root}", timesteps=3, slices="time", img_size=17)
    assert smaller.input_size == (2, 17, 17)
    assert smaller.sha256 == data.sha256  # the same recordings, however they are cut
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
    other = shutil.copytree(root, tmp_path / "other", copy_function=shutil.copy2)
    for file in (other / "Train" / "0").iterdir():  # of the same names, sizes and times
        shutil.copyfile(root / "Train" / "1" / file.name, file)
        shutil.copystat(root / "Train" / "0" / file.name, file)
    assert zoo.load_dataset(f"nmnist:{other}", timesteps=3).sha256 != data.sha256
    with pytest.raises(ZooError, match="timesteps must be an integer from 1"):
        zoo.load_dataset(f"nmnist:{root}", timesteps=0)
    (root / "Train" / "0" / "._00000.bin").write_bytes(b"as macOS leaves beside files")
    assert zoo.load_dataset(f"nmnist:{root}", timesteps=3).sha256 == data.sha256
    file = root / "Train" / "0" / "00000.bin"
    file.write_bytes(b"12")
    with pytest.raises(ZooError, match=r"00000\.bin is cut short"):
        zoo.load_dataset(f"nmnist:{root}", timesteps=3)
    assert all(file.with_suffix(".json").exists() for file in (tmp_path / "cache").rglob("*.npy"))
    file.write_bytes(bin_bytes(moving(0, 99, (34, 34))))
    assert zoo.load_dataset(f"nmnist:{root}", timesteps=3).sha256 != data.sha256


def test_gestures_are_cut_out_of_their_recordings(tmp_path):
    data = zoo.load_dataset(f"dvsgesture:{gesture(tmp_path / 'g')}", timesteps=4, img_size=32)
    assert data.train_images.shape == (6, 4, 2, 32, 32)
    assert data.train_labels.tolist() == [0, 1] * 3
    assert data.train_images.sum((1, 2, 3, 4)).tolist() == [1000] * 6  # no event of a pause
    (tmp_path / "g" / "user24_led_labels.csv").write_text("class,begin,end\n12,1,2\n")
    with pytest.raises(ZooError, match=r"user24_led_labels.csv, line 2: classes are 1 to 11, not 12"):
        zoo.load_dataset(f"dvsgesture:{tmp_path / 'g'}", timesteps=4)


def test_the_split_of_cifar10dvs_is_the_first_nine_tenths_by_name(tmp_path):
    root = cifar10dvs(tmp_path / "c")
    data = zoo.load_dataset(f"cifar10dvs:{root}", timesteps=2, img_size=48)
    assert data.train_images.shape == (20, 2, 2, 48, 48)
    last = read_events(root / "bird" / "cifar10_bird_9.aedat", (128, 128))  # 0, 1, 10, 2, ..., 9
    place = data.test_labels.tolist().index(1)
    assert np.array_equal(data.test_images[place], to_frames(last, (128, 128), 2, size=(48, 48)))


def test_recordings_of_your_own(tmp_path):
    root = tmp_path / "mine"
    for part in ("train", "test"):
        for label, name in enumerate(("right", "down")):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                np.savez(root / part / name / f"{i}.npz", **moving(label, i, (20, 30))._asdict())
    with pytest.raises(ZooError, match=r"sensor.json is missing"):
        zoo.load_dataset(f"events:{root}")
    (root / "sensor.json").write_text(json.dumps({"height": 20, "width": 30}))
    data = zoo.load_dataset(f"events:{root}", timesteps=2)
    assert (data.name, data.classes, data.input_size) == ("mine", ["down", "right"], (2, 20, 30))
    assert data.train_images.sum() == 4000
    (root / "train" / "up").mkdir()
    with pytest.raises(ZooError, match=r"up holds no recording"):
        zoo.load_dataset(f"events:{root}")
    with pytest.raises(ZooError, match="no such folder"):
        zoo.load_dataset(f"events:{root}x")
    (root / "sensor.json").write_text(json.dumps({"height": 0, "width": 30}))
    with pytest.raises(ZooError, match=r"height and width must lie in"):
        zoo.load_dataset(f"events:{root}")


def test_images_become_events_where_neighbours_differ(kept, tmp_path):
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[..., 4:] = 200
    events = image_events(image)
    assert events.shape == (1, 8, 2, 8, 8)
    assert events[0, 0].sum((0, 1)).tolist() == [0, 0, 0, 8, 0, 0, 0, 0]  # the neighbour to the right is brighter
    assert events[0, 0, 1, :, 3].all()
    assert events[0, 4].sum((0, 1)).tolist() == [0, 0, 0, 0, 8, 0, 0, 0]
    assert events[0, 4, 0, :, 4].all()
    assert not events[0, [2, 6]].any()  # rows are alike
    assert not image_events(torch.full((1, 3, 8, 8), 9, dtype=torch.uint8)).any()
    data = zoo.load_dataset("i2e:digits")
    assert (data.name, data.timesteps, data.input_size) == ("i2e_digits", 8, (2, 32, 32))
    with pytest.raises(ZooError, match="frames already"):
        zoo.load_dataset("i2e:i2e:digits")
    pictures = f"folder:{make_pictures(tmp_path / 'x', ('train', 'val', 'test'), 2)}"
    images, frames = zoo.load_dataset(pictures), zoo.load_dataset(f"i2e:{pictures}")
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(frames, f"{part}_images"), image_events(getattr(images, f"{part}_images")))
        assert torch.equal(getattr(frames, f"{part}_labels"), getattr(images, f"{part}_labels"))
    turned = images._replace(train_images=images.train_images.flip(2))  # which is no other data set by its sha256
    assert torch.equal(load_i2e(turned).train_images, image_events(turned.train_images))
    for file in kept.glob("*.npy"):  # as whoever needs the space does
        file.unlink()
    assert torch.equal(zoo.load_dataset(f"i2e:{pictures}").train_images, frames.train_images)


def test_what_a_killed_process_left_is_not_taken_for_whole(kept):
    def ones(whole):
        whole[:] = 1
        return {}

    for ending in (ones, lambda _: os._exit(0)):
        before = {*kept.glob("*.npy")}
        if (child := os.fork()) == 0:
            try:
                cached("frames", ["killed"], (4,), ending)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        (file,) = {*kept.glob("*.npy")} - before
        if ending is ones:
            file.unlink()
    assert cached("frames", ["killed"], (4,), ones)[0].tolist() == [1, 1, 1, 1]


def test_frames_of_ones_own_are_mirrored_as_ours(monkeypatch):
    monkeypatch.setitem(OWN_DATASETS, "noisy", lambda root: load_i2e(zoo.load_dataset("digits", root), noise=0.1))
    exact = zoo.load_dataset("i2e:digits")
    assert zoo.load_dataset("noisy").mirrored == exact.mirrored is not None
    assert zoo.load_dataset("i2e:digits", img_size=16).sha256 == exact.sha256 != zoo.load_dataset("noisy").sha256


def test_events_of_images_err_as_asked():
    images = zoo.load_dataset("digits").test_images[:50]
    exact = image_events(images)
    drawn = [image_events(images, noise=0.2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert 0.001 < (drawn[0] != exact).float().mean() < 0.1
    assert not image_events(torch.full((1, 3, 8, 8), 9, dtype=torch.uint8), noise=5.0).any()
    late = image_events(images, jitter=1)
    assert torch.equal(late.sum(1), exact.sum(1))  # moved in time, none lost
    assert 0.3 < (late != exact).any(1)[exact.bool().any(1)].float().mean() < 1
    with pytest.raises(ZooError, match="0 or more"):
        image_events(images, noise=-1)


def test_a_network_learns_from_recordings_and_is_validated_on_them(tmp_path):
    root = nmnist(tmp_path / "n")
    recipe = {
        "model": "svgg11_w8", "dataset": f"nmnist:{root}", "timesteps": 3, "batch_size": 8, "epochs": 20,
        "auto_augment": "nda", "crop": 2, "hflip": False, "cutout": 4, "mixup": 0.1, "lr": 0.05, "slices": "time",
        "out": str(tmp_path / "run"), "device": "cpu", "amp": "off",
    }  # fmt: skip
    result = train(Recipe(**recipe))
    assert result["top1"] == 100
    found = validate(str(tmp_path / "run"), f"nmnist:{root}", device="cpu")
    assert {key: found[key] for key in ("top1", "spikes_per_image")} == {
        key: result[key] for key in ("top1", "spikes_per_image")
    }
    model = zoo.load(str(tmp_path / "run"))
    again = recipe_for(str(tmp_path / "run"), f"nmnist:{root}", {})
    assert (again.timesteps, again.slices, again.img_size) == (3, "time", 34)
    files = [str(root / "Test" / label / "00001.bin") for label in "01"]
    assert [entry["top"][0]["label"] for entry in predict(model, files)] == ["0", "1"]
    assert len(predict(model, root / "Test")) == 8
    with pytest.raises(ZooError, match=r"outside the sensor's 0\.\.19"):
        predict(model, files, sensor=(34, 20))
    assert (model.encoding, model.in_chans, *model.pretrained_cfg["input_size"]) == ("frames", 2, 2, 34, 34)
    for wrong, words in [
        ({"auto_augment": "randaugment"}, "randaugment is for images in colour"),
        ({"phases": [{"epochs": 1, "timesteps": 1}]}, "no phase changes size or timesteps"),
        ({"dataset": "digits"}, "nda is for event frames"),
        ({"dataset": "digits", "auto_augment": "none", "slices": "time"}, "slices: time is for event recordings"),
    ]:
        with pytest.raises(ZooError, match=words):
            train(Recipe(**recipe | {"out": str(tmp_path / "wrong")} | wrong))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [("max_resnet18_w32_gs.t16_dvsgesture", gesture), ("max_resnet18_w32_gs.t10_cifar10dvs", cifar10dvs)],
)
def test_the_recipes_of_event_cameras_run_on_files_of_their_formats(name, make, tmp_path):
    kind, out = name.split("_")[-1], tmp_path / "run"
    short = {"epochs": 1, "warmup_epochs": 0, "batch_size": 4, "out": str(out), "device": "cpu", "amp": "off"}
    result = train(load_recipe(name, {"dataset": f"{kind}:{make(tmp_path / 'files')}", **short}))
    assert result["epochs"] == 1
    assert validate(str(out), f"{kind}:{tmp_path / 'files'}", device="cpu")["top1"] == result["top1"]


@pytest.mark.slow
def test_a_network_of_frames_is_exported_and_measured_on_recordings(tmp_path):
    root, run, file = nmnist(tmp_path / "n"), tmp_path / "run", tmp_path / "run.onnx"
    recipe = {"model": "svgg11_w8", "dataset": f"nmnist:{root}", "timesteps": 3, "batch_size": 8, "epochs": 4}
    found = train(Recipe(**recipe, slices="time", crop=0, out=str(run), device="cpu", amp="off"))
    export([str(run), "-o", str(file), "--data", f"nmnist:{root}"])
    images = load_images(f"nmnist:{root}", prepare=read_file(file).ours().cfg)
    measured = benchmark(str(file), **images._asdict(), runs=2)
    assert (measured["top1"], measured["spikes_per_image"]) == (found["top1"], found["spikes_per_image"])
    early_exit([str(file), "--data", f"nmnist:{root}", "--json", str(tmp_path / "exit.json")])
    rows = json.loads((tmp_path / "exit.json").read_text())["rows"]
    assert (rows[-1]["top1"], rows[-1]["mean_steps"]) == (found["top1"], 3)
    export([str(run), "-o", str(tmp_path / "step.onnx"), "--layout", "step", "--precision", "int16"])
    recorded = root / "Test" / "1" / "00002.bin"
    event_stream([str(tmp_path / "step.onnx"), str(recorded), "--every", "333", "--json", str(tmp_path / "s.json")])
    answers = json.loads((tmp_path / "s.json").read_text())["frames"]
    assert [answer["events"] for answer in answers] == [333, 333, 333]
    frames = list(frames_as_they_come([read_events(recorded, (34, 34))], (34, 34), every=333))
    runner = Runner(read_model(tmp_path / "step.onnx")[1])
    logits = runner(np.stack(frames)[None].astype(np.float32), ["logits"])[0]
    stream = Stream(tmp_path / "step.onnx")
    assert np.allclose(list(follow(stream, frames))[-1].logits, logits[0], atol=1e-5)
    with pytest.raises(ZooError, match="too few for one frame"):
        event_stream([str(tmp_path / "step.onnx"), str(recorded), "--every", "5000"])
    np.savez(tmp_path / "long.npz", t=np.array([0, 10**15]), x=[0, 0], y=[0, 0], p=[0, 1])
    with pytest.raises(ZooError, match="more than 1,000,000 frames"):
        event_stream([str(tmp_path / "step.onnx"), str(tmp_path / "long.npz"), "--microseconds", "1000"])
