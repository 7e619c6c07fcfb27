"""Build the CPU kernel with the machine's own C++ compiler, once for each type of data, and keep it in a cache."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import ZooError

_SOURCE = Path(__file__).with_name("lif.cpp")
# No -ffast-math and no contraction to fused multiply-add: spikes must equal the reference's bit for bit.
# Compilers use half of a 512-bit unit by default, to spare clock rates that newer processors do not drop.
_WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
_FLAGS = "-std=c++17 -O2 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared"


def find_compiler() -> str | None:
    """The C++ compiler: what CXX names, else c++, g++ or clang++ on the PATH; None where there is none."""
    if sys.platform != "linux":
        return None
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def load_library(**constants: str | int) -> ctypes.CDLL:
    """The kernel with its constants (see lif.cpp: SCALAR, STEPS ...), built now if the cache does not hold it.

    Raises:
        ZooError: no compiler, or it fails; the message says how.
    """
    compiler = find_compiler()
    if compiler is None:
        raise ZooError("no C++ compiler found (CXX, c++, g++ or clang++ on the PATH)")
    flags = [*_FLAGS.split(), *_WIDE, *(f"-D{name}={value}" for name, value in constants.items())]
    key = "\n".join([_SOURCE.read_text(), compiler, *flags, _processor()])
    name = f"lif-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    folder = _cache_folder()
    library = folder / name
    if not library.exists():
        building = folder / f"{name}.{os.getpid()}"  # several processes may build at once: the last rename wins
        done = subprocess.run([compiler, *flags, str(_SOURCE), "-o", str(building)], capture_output=True, text=True)
        if done.returncode:
            building.unlink(missing_ok=True)
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise ZooError(f"{compiler} cannot build the neuron kernel: {first}")
        building.replace(library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise ZooError(f"cannot load the neuron kernel {name}: {error}") from error


def _processor() -> str:
    """What -march=native depends on: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


@functools.cache
def _cache_folder() -> Path:
    """SNNZOO_CACHE, else the user's cache folder; where it cannot be written, a folder for this process alone."""
    try:
        root = os.environ.get("SNNZOO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "snn-zoo" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    # Never a shared place such as /tmp/snn-zoo, where somebody else could leave a library for us to load.
    return Path(tempfile.mkdtemp(prefix="snn-zoo-"))
