"""An architecture of one's own: a class and a table of its variants, each with its twin that gradient scaling trains.

snn-zoo train quickstart --plugin recipes/examples/network.py --model my_net_gs --out runs/network
"""

from itertools import pairwise

from torch import nn

import zoo
from zoo.layers import ConvNeuron


class MyNet(zoo.SpikingNetwork):
    """A stem, then stages of one convolution and a pooling each."""

    def __init__(self, widths, **kwargs):
        super().__init__(**kwargs)
        self.make_stem(widths[0])
        for i, (before, width) in enumerate(pairwise(widths)):
            block = ConvNeuron(before, width, self.make, 3, by_default=True)  # gradient scaling reaches it
            self.add_stage(nn.Sequential(block, nn.MaxPool2d(2)), width, 2 ** (i + 1))
        self.finish()  # the classifier, initial weights, gradient scaling


zoo.register_family(
    MyNet,
    [
        zoo.Variant("my_net", "Three stages of one convolution each.", {"widths": (8, 16, 32, 64)}),
        zoo.Variant("my_wide_net", "The same, twice as wide.", {"widths": (16, 32, 64, 128)}),
    ],
)
