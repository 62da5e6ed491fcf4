"""Code for real GPUs comes out of the kernels. Compiling needs no GPU, and finds what the interpreter lets pass."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'moslora[triton]'")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from moslora.ops import triton_kernels

pytestmark = pytest.mark.slow

TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # that a block can have, by compute capability
KERNELS = {"_drop_kernel": 4, "_down_kernel": 8, "_up_kernel": 8, "_A_gradient_kernel": 8, "_x_gradient_kernel": 4}


def compiled(name: str, capability: int, x_dtype: torch.dtype, dtype: torch.dtype, r: int):
    kernel = getattr(triton_kernels, name)
    rows = triton_kernels._one_pass_rows(dtype) if name == "_up_kernel" else triton_kernels._ROWS
    constants = {
        "DROPPED": 3277,
        "HAS_BASE": True,
        "BLOCK_T": rows,
        "BLOCK_D": triton_kernels._columns(dtype),
        "BLOCK_R": triton_kernels._padded(r),
        "column_stride": 1,
    }
    kinds = dict.fromkeys(("x", "g", "out", "dx"), TYPES[x_dtype]) | dict.fromkeys("ABh", TYPES[dtype])
    kinds |= {"dh": TYPES[dtype], "dA": "*fp32", "dB": "*fp32", "seed": "i64", "s": "fp32"}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    values = {(names.index(name),): value for name, value in constants.items() if name in names}
    stages = 2 if name == "_up_kernel" else 3
    return triton.compile(
        ASTSource(kernel, signature, values),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": KERNELS[name], "num_stages": stages},
    )


@pytest.fixture(autouse=True)
def _no_cache_from_before(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("capability", SHARED_BYTES)
@pytest.mark.parametrize(
    ("x_dtype", "dtype", "r"),
    [
        (torch.bfloat16, torch.bfloat16, 16),
        (torch.float16, torch.float16, 128),
        (torch.bfloat16, torch.float32, 16),
        (torch.float32, torch.float32, 64),
    ],
)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_and_its_shared_memory_fits(name, capability, x_dtype, dtype, r):
    if name == "_up_kernel":
        r = min(r, triton_kernels._ONE_PASS_RANK)
    binary = compiled(name, capability, x_dtype, dtype, r)
    assert binary.asm["cubin"]
    assert binary.metadata.shared <= SHARED_BYTES[capability]


def test_a_compiled_product_of_bfloat16_runs_on_the_matrix_units():
    ptx = compiled("_down_kernel", 80, torch.bfloat16, torch.bfloat16, 16).asm["ptx"]
    assert "mma.sync" in ptx
    ptx = compiled("_down_kernel", 80, torch.float32, torch.float32, 16).asm["ptx"]
    assert "mma" not in ptx  # TF32 would round float32 to 11 bits
