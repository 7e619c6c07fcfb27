"""How a network is laid out in ONNX."""

from collections.abc import Callable

from ..assembly import Assembly
from ..parts import Parts
from .flat import unrolled
from .folded import folded
