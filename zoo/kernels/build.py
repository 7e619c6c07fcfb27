"""Builds C++ files with the machine's own compiler, once for each set of flags, and keeps the libraries in a cache."""

import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import ZooError, one_line, shown
from ..files import cache_folder
from ..provenance import cpu_line

# No -ffast-math and no contraction to fused multiply-add: spikes must equal the reference's bit for bit.
# Compilers use half of a 512-bit unit by default, to spare clock rates that newer processors do not drop.
_WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
_FLAGS = "-std=c++17 -O2 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared"
_SECONDS = 120  # that a compiler has, which takes five or so, and longer on a machine that is busy


def find_compiler() -> str | None:
    """The C++ compiler: what CXX names, else c++, g++ or clang++ on the PATH; None where there is none, or no Linux."""
    if sys.platform != "linux":
        return None
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def load_library(source: Path, *flags: str) -> ctypes.CDLL:
    """Loads the library that `build_library` builds; ZooError says why it cannot be built or loaded."""
    library = build_library(source, *flags)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        library.unlink(missing_ok=True)  # next time it is built anew
        why = one_line(error).replace(str(library), "it")
        raise ZooError(f"cannot load what {find_compiler()} built of {source.name}: {why}") from error


def build_library(source: Path, *flags: str) -> Path:
    """Builds a shared library of a C++ file, unless the cache holds it, and returns where it is.

    The compiler gets `flags`, -DNAME=VALUE, -I..., beside those that all kernels need; what the file includes beside
    the system's headers must be named by flags that change with it. Raises ZooError where there is no compiler, or it
    fails or takes too long.
    """
    if sys.platform != "linux":
        raise ZooError(f"C++ kernels are for Linux, and this is {sys.platform}")
    if (compiler := find_compiler()) is None:
        raise ZooError("no C++ compiler found (CXX, c++, g++ or clang++ on the PATH)")
    command = [compiler, *_FLAGS.split(), *_WIDE, *flags]
    # A cache may be shared by machines: of other processors, which -march=native depends on, or with other systems.
    size, libc = Path(compiler).resolve().stat().st_size, platform.libc_ver()
    machine = [cpu_line("flags", "Features"), str(size), *libc]
    key = hashlib.sha256("\n".join([source.read_text(), *command, *machine]).encode()).hexdigest()
    library = cache_folder("kernels") / f"{source.stem}-{key[:16]}.so"
    if not _is_whole(library):
        _compile([*command, str(source)], library)
    return library


def _is_whole(library: Path) -> bool:
    """Returns whether a file is there and was not cut short, which the loader would crash on."""
    try:
        with library.open("rb") as file:
            header, size = file.read(64), os.fstat(file.fileno()).st_size
    except OSError:  # none, or of another user who shares the cache
        return False
    if len(header) < 64 or header[:5] != b"\x7fELF\2":
        return False
    (sections,) = struct.unpack_from("Q", header, 40)  # a table of them ends the file
    each, count = struct.unpack_from("HH", header, 58)
    return size >= sections + each * count


def _compile(command: list[str], library: Path) -> None:
    what = f"{command[0]} cannot build {Path(command[-1]).name}"
    # Several may build at once, on other machines, too: the last rename wins, and the library is always whole.
    building = library.with_name(f"{library.name}.{secrets.token_hex(8)}")
    try:
        with tempfile.TemporaryFile() as said:  # no pipe, which a process left behind by the compiler would keep open
            command = [*command, "-o", str(building)]
            quiet = subprocess.DEVNULL
            done = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=said, timeout=_SECONDS, check=False)
            said.seek(0)
            text = said.read(10_000).decode(errors="replace")
        if done.returncode or not building.is_file() or not building.stat().st_size:
            first = next((line for line in text.splitlines() if "error" in line), text.strip()) or "it writes nothing"
            raise ZooError(f"{what}: {shown(first)}")
        building.chmod(0o755)  # for whoever shares the cache
        building.replace(library)
    except subprocess.TimeoutExpired:
        raise ZooError(f"{what}: it does not end within {_SECONDS} s") from None
    except OSError as error:
        raise ZooError(f"{what}: {error.strerror}") from error
    finally:
        building.unlink(missing_ok=True)
