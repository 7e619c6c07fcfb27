"""How a network is laid out in ONNX: which for whom, export/README.md says.

flat       every time step written out; standard operators, nothing to know: the fastest, and the default
function   each layer once, over all steps, a function for each kind of neuron; to read, and for compilers
step       one time step, its states beside the input; for streams, and to stop early
loop       one time step inside ONNX's Loop; any number of steps, a small graph
"""

from .flat import unrolled
from .folded import folded
from .function import with_functions
from .stream import TIMESTEPS, loop, states_of, step, value_info

__all__ = ["LAYOUTS", "TIMESTEPS", "folded", "loop", "states_of", "step", "unrolled", "value_info", "with_functions"]

LAYOUTS = ["flat", "function", "step", "loop"]
"""What `layout` takes."""
