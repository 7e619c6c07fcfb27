"""The CUDA kernel: in Triton's interpreter and compiler on a CPU, and on a CUDA device where there is one."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run_code

from zoo.kernels import _obstacle
from zoo.neurons.lif import LIF

pytest.importorskip("triton")
from triton_parity import DTYPES, cases, compare

needs_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def run_script(*arguments: str, **env: str) -> None:
    """Python in a process of its own, which must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""} | env
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("every", ["3", pytest.param("1", marks=pytest.mark.slow)])  # an even one leaves kinds out
def test_equals_the_reference_in_the_interpreter(every):
    run_script("tests/zoo/kernels/triton_parity.py", every, TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the assembler that comes with Triton")
def test_compiles_without_fused_multiply_add(tmp_path):
    run_script("tests/zoo/kernels/triton_compile.py", "80", "90", TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


def test_importing_the_zoo_leaves_triton_alone():  # as far as PyTorch, which may import it, does
    done = run_code("import sys, zoo.kernels; assert 'zoo.kernels.triton_lif' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_says_what_it_cannot_run():
    assert "int32" in _obstacle("cuda", torch.int32, LIF(4)._numbers(), False)
    assert "65" in _obstacle("cuda", torch.float32, LIF(65)._numbers(), False)
    done = run_code(
        "import sys, torch; sys.modules['triton'] = None\n"
        "from zoo.kernels import _obstacle; from zoo.neurons import LIF\n"
        "assert 'cannot be imported' in _obstacle('cuda', torch.float32, LIF(4)._numbers(), False)"
    )
    assert done.returncode == 0, done.stderr


class TestDevice:
    pytestmark = needs_cuda

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_equals_the_reference(self, dtype):
        problems = []
        for case in [case for case in cases() if case.dtype is dtype][::7]:  # each is a kernel of its own to compile
            problems += compare(case, "cuda")
        assert not problems, "\n".join(problems[:5])

    def test_takes_more_elements_than_32_bits_count(self):
        if torch.cuda.mem_get_info()[0] < 16 << 30:
            pytest.skip("needs 16 GiB of GPU memory")
        x = torch.zeros(4, (1 << 29) + 64, dtype=torch.bfloat16, device="cuda")
        x[-1, -65:] = 2
        with torch.no_grad():
            spikes = LIF(4, kernel="fused")(x)
        assert spikes[-1, -66:].tolist() == [0] + [1] * 65
        assert int(spikes.view(torch.int16).count_nonzero()) == 65
