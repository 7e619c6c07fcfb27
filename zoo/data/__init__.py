"""Data sets as whole uint8 tensors: decoded once, augmented in batches on the device.

    dataset.py    what a data set is: images, labels, class names, channel statistics, a checksum
    registry.py   from a name to a data set, ours or one of your own (`register_dataset`)
    builtin.py    cifar10 and cifar100 from torchvision's files, digits from scikit-learn
    folder.py     "folder:DIR": images by class, DIR/train/CLASS/*, DIR/val/CLASS/*, DIR/test/CLASS/*
    images.py     an image file to pixels: which formats, how large, and how it is brought to the network's size
    batches.py    from uint8 pixels to what a network sees; the split into training and validation

A training reads the test set once, at its end. Of a folder, `test/` is the test set and `val/` is held out for
validation; where there is only one of the two, it is the test set, and `val_images` holds out some of `train/`.
"""

from .batches import normalisation, normalise, split
from .dataset import SIZE, DataSet
from .registry import dataset_name, list_datasets, load_dataset, register_dataset

__all__ = [
    "SIZE",
    "DataSet",
    "dataset_name",
    "list_datasets",
    "load_dataset",
    "normalisation",
    "normalise",
    "register_dataset",
    "split",
]
