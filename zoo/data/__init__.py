"""Data sets as whole uint8 tensors: decoded once, augmented in batches on the device.

    dataset.py    what a data set is: images, labels, class names, statistics, a checksum; what a network sees of it
    registry.py   from a name to a data set: CIFAR, digits, a folder, or one of your own (`register_dataset`)
    folder.py     "folder:DIR": images by class, DIR/train/CLASS/*, DIR/val/CLASS/*, DIR/test/CLASS/*
    event_sets.py folders of recordings of event cameras ("cifar10dvs:DIR", "dvsgesture:DIR", "nmnist:DIR",
                  "events:DIR") and images turned to events ("i2e:DATASET"), as frames
    events.py     a recording to events, and events to frames
    images.py     an image file to pixels: which formats, how large, and how it is brought to the network's size

A training reads the test set once, at its end. Of a folder, `test/` is the test set and `val/` is held out for
validation; where there is only one of the two, it is the test set, and `val_images` holds out some of `train/`.
"""

from ..names import SIZE, dataset_name
from .dataset import DataSet, normalisation, normalise, split
from .registry import list_datasets, load_dataset, register_dataset

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
