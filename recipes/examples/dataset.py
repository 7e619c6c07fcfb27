"""A data set of one's own: a function that gives images and labels, for train, validate, export and bench-ort.

snn-zoo train quickstart --plugin recipes/examples/dataset.py --dataset shades --out runs/dataset
"""

import torch

import zoo


def load(root):
    """Dark and bright noise; `root` is --data-dir or SNNZOO_DATA, None without either."""
    images = torch.randint(256, (240, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(240) % 2
    images = images // 2 + 120 * labels.to(torch.uint8)[:, None, None, None]
    train = {"classes": ["dark", "bright"], "train_images": images[:160], "train_labels": labels[:160]}
    return train | {"test_images": images[160:], "test_labels": labels[160:]}


zoo.register_dataset("shades", load)
