"""Build the CPU kernel with the machine's own C++ compiler, once for each type of data, and keep it in a cache."""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import ZooError, one_line, shown
from ..files import user_path

_SOURCE = Path(__file__).with_name("lif.cpp")
# No -ffast-math and no contraction to fused multiply-add: spikes must equal the reference's bit for bit.
# Compilers use half of a 512-bit unit by default, to spare clock rates that newer processors do not drop.
_WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
_FLAGS = "-std=c++17 -O2 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared"

SYMBOLS = ("lif_args_size", "lif_forward", "lif_backward", "weighted_steps")
"""The functions of the library."""
_PATIENCE = 40
"""Seconds that a compiler has; ours takes five or so."""
_GIVEN_UP: dict[str, str] = {}
"""Compilers that took longer, and what to say of them."""


def find_compiler() -> str | None:
    """The C++ compiler: what CXX names, else c++, g++ or clang++ on the PATH; None where there is none, or no Linux."""
    if sys.platform != "linux":
        return None
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def load_library(**constants: str | int) -> ctypes.CDLL:
    """The kernel with its constants (see lif.cpp: SCALAR, STEPS ...), built now if the cache does not hold it.

    Raises:
        ZooError: no compiler, or it fails, or what it built is another library; the message says how.
    """
    if sys.platform != "linux":
        raise ZooError(f"the neuron kernel is for Linux, and this is {sys.platform}")
    compiler = find_compiler()
    if compiler is None:
        raise ZooError("no C++ compiler found (CXX, c++, g++ or clang++ on the PATH)")
    flags = [*_FLAGS.split(), *_WIDE, *(f"-D{name}={value}" for name, value in constants.items())]
    key = "\n".join([_SOURCE.read_text(), compiler, *flags, _processor()])
    name = f"lif-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    folder = _cache_folder()
    library = folder / name
    if not library.exists():
        _compile(compiler, flags, library)
    try:
        found = ctypes.CDLL(str(library))
        for symbol in SYMBOLS:
            getattr(found, symbol)
    except (OSError, AttributeError) as error:
        library.unlink(missing_ok=True)  # next time it is built anew
        raise ZooError(
            f"cannot load the neuron kernel that {compiler} built: {one_line(error).replace(str(library), 'it')}"
        ) from error
    return found


def _compile(compiler: str, flags: list[str], library: Path) -> None:
    """Build a library; it appears under its name once it is whole.

    Raises:
        ZooError: the compiler fails, writes nothing, or takes too long, which it then is not asked again to do.
    """
    if compiler in _GIVEN_UP:
        raise ZooError(_GIVEN_UP[compiler])
    # Several may build at once, on other machines, too: the last rename wins.
    building = library.with_name(f"{library.name}.{secrets.token_hex(8)}")
    try:
        with tempfile.TemporaryFile() as said:
            # A session of its own: what the compiler starts ends with it.
            process = subprocess.Popen(
                [compiler, *flags, str(_SOURCE), "-o", str(building)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(_PATIENCE)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                _GIVEN_UP[compiler] = f"{compiler} does not end within {_PATIENCE} s: it cannot build the neuron kernel"
                raise ZooError(_GIVEN_UP[compiler]) from None
            said.seek(0)
            text = said.read(10_000).decode(errors="replace")
        if status or not building.is_file() or not building.stat().st_size:
            first = next((line for line in text.splitlines() if "error" in line), text.strip()) or "it writes nothing"
            raise ZooError(f"{compiler} cannot build the neuron kernel: {shown(first)}")
        building.replace(library)
    except OSError as error:
        raise ZooError(f"{compiler} cannot build the neuron kernel: {error.strerror}") from error
    finally:
        building.unlink(missing_ok=True)


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
        folder = user_path(root) / "snn-zoo" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    # Never a shared place such as /tmp/snn-zoo, where somebody else could leave a library for us to load.
    folder = Path(tempfile.mkdtemp(prefix="snn-zoo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
