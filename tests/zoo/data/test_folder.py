"""Images of one's own: which files are read and how, what is refused and how that is said."""

import errno
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import CLASSES, make_pictures
from PIL import Image
from timm.data import create_transform

from zoo.data import dataset as dataset_module
from zoo.data import dataset_name, folder, load_dataset
from zoo.data.folder import files_by_part, load_test_part
from zoo.data.images import Preparation, folder_cfg, read_image
from zoo.errors import ZooError
from zoo.files import cache_folder
from zoo.names import folder_name


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("own") / "my flowers", ("train", "val", "test"))


def test_pictures_become_square_tensors_in_a_fixed_order_of_all_classes(flowers):
    data = load_dataset(f"folder:{flowers}")
    assert (data.name, data.classes, data.size) == ("my_flowers", CLASSES, 32)
    assert [len(x) for x in (data.train_images, data.val_images, data.test_images)] == [48, 24, 24]
    assert data.train_images.dtype == torch.uint8
    assert set(data.test_labels[:12].tolist()) == {0, 1, 2}
    brightness = [data.train_images[data.train_labels == label].float().mean() for label in range(3)]
    assert brightness == sorted(brightness)
    assert data.sha256 == load_dataset(f"folder:{flowers}/").sha256
    assert data.sha256 == load_dataset(f"folder:{flowers}", img_size=48).sha256  # one data set, on one board


def test_other_files_are_another_data_set(tmp_path):
    pictures = make_pictures(tmp_path / "x", ("train", "val"), 2)
    seen = {load_dataset(f"folder:{pictures}").sha256}
    rose = sorted((pictures / "val" / "rose").iterdir())
    rose[0].write_bytes(rose[1].read_bytes())
    seen.add(load_dataset(f"folder:{pictures}").sha256)
    rose[0].rename(pictures / "val" / "daisy" / rose[0].name)
    seen.add(load_dataset(f"folder:{pictures}").sha256)
    assert len(seen) == 3


def test_a_picture_is_prepared_as_timm_evaluates(flowers):
    prepare = Preparation(folder_cfg(48))
    reference = create_transform((3, 48, 48), crop_pct=1.0, interpolation="bilinear", mean=(0,) * 3, std=(1,) * 3)
    for path in sorted((flowers / "train" / "rose").iterdir()):
        picture = Image.open(path)
        expected = reference(picture.convert("RGBA" if "transparency" in picture.info else "RGB").convert("RGB"))
        assert torch.equal(prepare(path).float() / 255, expected), path


def test_classes_alone_are_split_by_themselves_and_always_alike(tmp_path):
    root = make_pictures(tmp_path / "x", ("train",), 10)  # twenty a class
    whole = root / "train"
    data = load_dataset(f"folder:{whole}")
    assert data.classes == CLASSES
    for part in ("val", "test"):  # a tenth, as chance has it
        assert all(1 <= count <= 5 for count in torch.bincount(getattr(data, f"{part}_labels")))
    assert sum(len(getattr(data, f"{part}_labels")) for part in ("train", "val", "test")) == 60
    assert data.sha256 == load_dataset(f"folder:{whole}").sha256
    parts = files_by_part(str(whole))
    seen = [path for files in parts.values() for of in files.values() for path in of]
    assert len(seen) == len(set(seen)) == 60
    for i in range(40):
        shutil.copy(seen[0], whole / "rose" / f"{i}.png")
    again = files_by_part(str(whole))
    for part in ("train", "val", "test"):  # where a file was it stays
        assert set(parts[part]["rose"]) <= set(again[part]["rose"])
        assert len(again[part]["rose"]) > len(parts[part]["rose"])
    odd = Path(os.fsdecode(os.fsencode(whole / "rose") + b"/caf\xe9.png"))  # as archives of old systems have it
    shutil.copy(seen[0], odd)
    assert any(odd in part["rose"] for part in files_by_part(str(whole)).values())
    for file in sorted((whole / "rose").iterdir())[2:]:
        file.unlink()
    with pytest.raises(ZooError, match="rose holds 2 image"):
        load_dataset(f"folder:{whole}")


@pytest.mark.parametrize("only", ["val", "test"])
def test_the_only_other_part_is_the_test_set(tmp_path, only):
    data = load_dataset(f"folder:{make_pictures(tmp_path / 'x', ('train', only), 2)}")
    assert (len(data.test_images), data.val_images) == (6, None)


def test_the_test_part_alone_is_that_of_the_whole(flowers):
    data = load_dataset(f"folder:{flowers}", img_size=24)
    (images, labels), classes = load_test_part(str(flowers), folder_cfg(24), limit=5)
    assert torch.equal(images, data.test_images[:5])
    assert torch.equal(labels, data.test_labels[:5])
    assert classes == data.classes


def test_every_mode_becomes_rgb(tmp_path):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(grey * 257).save(tmp_path / "16.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.int32) * 256).save(tmp_path / "32.tif")
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "narrow.tif")
    expected = np.asarray(read_image(tmp_path / "8.png"))
    for name in ("16.png", "32.tif", "narrow.tif"):
        assert np.array_equal(np.asarray(read_image(tmp_path / name)), expected), name
    (turned := Image.Exif())[0x112] = 6  # held upright: its left side is up in the file
    odd = struct.pack(">HHIf", 0x10F, 11, 1, 7.0) + struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)  # a maker that is no text
    for exif in (turned, b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + odd + bytes(4)):
        Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(tmp_path / "turned.jpg").size == (4, 6)
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"):
        suffix = {"CMYK": "jpg", "YCbCr": "jpg", "PA": "tif"}.get(mode, "png")
        picture = Image.new("RGB", (5, 4), (200, 100, 50)).convert("P" if mode == "PA" else mode)
        picture.save(tmp_path / f"{mode}.{suffix}")
        assert read_image(tmp_path / f"{mode}.{suffix}").mode == "RGB"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("flowers", "flowers"),
        ("/data/alice/My flowers (2024)/", "My_flowers_2024_"),
        ("../x/_hidden", "hidden"),
        ("花", "folder"),
        ("cifar10", "cifar10_folder"),  # its numbers are not CIFAR-10's
        ("a" * 200, "a" * 64),
    ],
)
def test_a_folder_gives_a_name_that_fits_a_tag(name, safe):
    assert dataset_name(f"folder:{name}") == safe
    assert dataset_name("cifar10") == "cifar10"
    assert folder_name(".") == folder_name(os.getcwd())


ROSE = Path("train", "rose", "00.jpg")
SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: (root / ROSE).write_bytes((root / ROSE).read_bytes()[:300]), str(ROSE)),
        (lambda root: (root / ROSE).write_text("no image"), str(ROSE)),
        (lambda root: (root / ROSE).write_bytes(SCRIPT), str(ROSE)),  # which Pillow would hand to Ghostscript
        (lambda root: ((root / ROSE).unlink(), os.mkfifo(root / ROSE)), str(ROSE)),
        (lambda root: Image.new("L", (1, 60_000)).save(root / ROSE), str(ROSE)),
        (lambda root: (root / "val/violet").mkdir(), "violet holds no image"),
        (lambda root: (root / "val/rose").rename(root / "val/violet"), "train/ has the class 'rose', which val/ lacks"),
        (lambda root: shutil.copytree(root / "val/rose", root / "val/violet"), "val/ has the class 'violet', which"),
        (lambda root: (root / "val").rename(root / "valid"), "neither val/ nor test/"),
        (lambda root: [(root / x).rename(root / f"{x}ing") for x in ("train", "val")], "holds folders and no image"),
        (lambda root: [(root / x / "rose").rename(root / x / "ro\x1bse") for x in ("train", "val")], r"ro\x1bse"),
        (lambda root: (root / "train/rose/x").symlink_to(root / "train/daisy"), "again, through a link"),
    ],
)
def test_a_bad_folder_is_one_error_that_names_it(spoil, named, tmp_path):
    spoil(root := make_pictures(tmp_path / "x", count=2))
    with pytest.raises(ZooError) as error:
        load_dataset(f"folder:{root}", img_size=224)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_folder_is_named(tmp_path):
    for name in ("", str(tmp_path / "none"), __file__, "~nobody/x"):
        with pytest.raises(ZooError, match="no such folder"):
            load_dataset(f"folder:{name}")
    with pytest.raises(ZooError, match="img_size must be an integer from 8 to 1024, not 4096"):
        load_dataset(f"folder:{tmp_path}", img_size=4096)


def test_files_that_are_no_images_are_left_out_aloud(tmp_path, capsys):
    root = make_pictures(tmp_path / "x", count=2)
    for name in ("notes.txt", ".DS_Store", ".hidden.png"):
        (root / "train" / "rose" / name).write_text("x")
    (root / "train" / "rose" / "more").mkdir()
    Image.new("RGB", (9, 9)).save(root / "train" / "rose" / "more" / "X.PNG")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "linked.png")
    (root / "train" / "rose" / "link").symlink_to(tmp_path / "elsewhere")
    Image.new("RGB", (9, 9)).save(root / "train" / "loose.png")
    (root / "valid").mkdir()
    assert len(load_dataset(f"folder:{root}").train_images) == 14
    told = capsys.readouterr().err
    assert "left out valid/, which is none of train/, val/ and test/" in told
    assert "left out 1 file" in told
    assert "left out 1 image(s) that are in no class's folder" in told


def test_too_little_memory_is_said_before_anything_is_decoded(flowers, monkeypatch):
    assert dataset_module.free_memory() > 1e6
    monkeypatch.setattr(dataset_module, "free_memory", lambda: 3_000_000)
    with pytest.raises(ZooError, match=r"24 images of 256 x 256 pixels .* 0\.0 GB of memory are free: lower img_size"):
        load_test_part(str(flowers), folder_cfg(256))
    assert len(load_test_part(str(flowers), folder_cfg(64))[0][1]) == 24


def test_a_full_disk_is_said_before_anything_is_decoded(flowers, monkeypatch):
    def full(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(folder, "_MAPPED", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ZooError, match=r"is to keep 0\.0 GB of images: Disk quota exceeded\. SNNZOO_CACHE"):
        load_dataset(f"folder:{flowers}")
    assert not list(cache_folder("images").glob("*.npy"))


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("1", (9000, 9000)).save(tmp_path / "x.png")
    with pytest.raises(ZooError, match=r"x\.png has 9000 x 9000 pixels"):
        read_image(tmp_path / "x.png")


def test_many_images_are_decoded_once_into_a_file_that_processes_map(flowers, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "cache_folder", lambda kind: tmp_path / kind)
    in_memory = load_dataset(f"folder:{flowers}")
    monkeypatch.setattr(folder, "_MAPPED", 0)
    first = load_dataset(f"folder:{flowers}")
    (file,) = (tmp_path / "images").glob("*.npy")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "Preparation", None)  # nobody decodes again
        again = load_dataset(f"folder:{flowers}")
    for data in (first, again):
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(data, in_memory, strict=True)
        )
    again.train_images.zero_()  # of one process alone
    assert torch.equal(load_dataset(f"folder:{flowers}").train_images, first.train_images)
    os.utime(next((flowers / "val" / "rose").iterdir()), (1, 1))
    assert load_dataset(f"folder:{flowers}").sha256 == first.sha256
    assert len(list((tmp_path / "images").glob("*.npy"))) == 2
    assert file.exists()
