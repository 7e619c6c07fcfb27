"""What a network reaches and costs, counted while it runs over a test set, once, in memory that no test set fills.

    evaluation  accuracy and all of the below, in one pass; bytes of the network, share of its weights that is 0
    spikes      spikes by layer and time step, firing rates, activation sparsity, membrane updates
    operations  synaptic operations, under the names and definitions of NeuroBench; products inside attention
    energy      what the operations cost under a stated model

NeuroBench is Yik et al. 2025 (Nature Communications 16, 1545; arXiv 2304.04640), its code version 2.3. Its numbers and
ours are the same (tests/zoo/metrics) but for four things that it does:

1. It sums in float32, where a count above 2^24 is rounded. We sum whole numbers.
2. It labels each call of a layer, AC if all inputs are -1, 0 or 1, else MAC. All time steps of a batch are one call of
   ours, so the label of a layer whose inputs are seldom otherwise (sums of spikes, SEW) depends on the size of the
   batches. Ours is of the layer over all images: a layer that ever needs a multiplier has one. The two agree where
   NeuroBench gets the images in one batch.
3. It sees convolutions and linear layers alone. Products of activations, as in attention, are counted here apart.
4. Its footprint holds what only training keeps beside the weights, the factors of some rules of gradient scaling.

NeuroBench itself runs on our networks, whose neurons it takes for activations, as it is told:

>>> from neurobench.benchmarks import Benchmark
>>> from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
>>> from neurobench.models import TorchModel
>>> wrapped = TorchModel(model.eval())
>>> wrapped.add_activation_module(zoo.SpikingNeuron)
>>> Benchmark(wrapped, loader, [], [], [[], [SynapticOperations, ActivationSparsity]]).run()

As there, biases, normalisation, pooling, sums and neurons are no synaptic operations. The input of the stem (pixels,
with direct encoding), sums of spikes, membrane currents and pooled rates are not binary, so what they meet are MACs.
"""

from .energy import energy
from .evaluation import connection_sparsity, evaluate, footprint
from .operations import OperationCounter
from .spikes import SpikeCounter

__all__ = ["OperationCounter", "SpikeCounter", "connection_sparsity", "energy", "evaluate", "footprint"]
