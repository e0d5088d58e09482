"""Host code that only a GPU needs, compiled alone and run beside stand-ins of torch's libraries."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY

CSRC = REPOSITORY / "csrc"
STREAM = "aoti_torch_get_current_cuda_stream"
TORCH_CUDA = f"""
extern "C" int {STREAM}(int device, void** stream) {{
  *stream = reinterpret_cast<void*>(0x5eed0L + device);
  return 0;
}}
"""
EXTENSION = """
#include "torch_symbol.h"
extern "C" void* found(const char* name) { return splatrender::torch_symbol(name); }
extern "C" void* found_by_default(const char* name) { return dlsym(RTLD_DEFAULT, name); }
"""
PROGRAM = f"""
import ctypes, sys
extension = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_LOCAL)
for function in (extension.found, extension.found_by_default):
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
name = b"{STREAM}"
print(bool(extension.found(name)))
torch_cuda = ctypes.CDLL(sys.argv[2], mode=ctypes.RTLD_LOCAL)
print(bool(extension.found_by_default(name)))
stream = ctypes.c_void_p()
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(extension.found(name))
call(3, ctypes.addressof(stream))
print(hex(stream.value))
"""
MESSAGE = """
#include <cstring>
#include "allocation.h"
extern "C" void message(int code, const char* what, char* text, long size) {
  splatrender::cuda::Status fault{"cudaDeviceSynchronize", code ? what : nullptr, code};
  const auto message = splatrender::allocation_failure(3 << 20, "cuda:1", "API call failed", fault);
  std::strncpy(text, message.c_str(), size);
}
"""


def library(folder: Path, name: str, source: str, *flags: str) -> Path:
    """Compile a shared library of one file."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile host code with")
    path = folder / name
    command = ["g++", "-std=c++17", "-shared", "-fPIC", f"-I{CSRC}", "-x", "c++", "-", *flags]
    subprocess.run([*command, "-o", str(path), "-ldl"], input=source, text=True, check=True)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA kernels are built on Linux alone")
def test_stream_is_found_in_a_library_that_torch_loads_for_itself(tmp_path: Path) -> None:
    """torch 2.10 to 2.12 export the stream from libtorch_cuda.so, which is loaded RTLD_LOCAL."""
    extension = library(tmp_path, "extension.so", EXTENSION)
    torch_cuda = library(tmp_path, "libtorch_cuda.so", TORCH_CUDA, "-Wl,-soname,libtorch_cuda.so")
    command = [sys.executable, "-c", PROGRAM, str(extension), str(torch_cuda)]
    done = subprocess.run(command, capture_output=True, text=True)
    # not before torch has loaded it; then not by RTLD_DEFAULT, but by the lookup
    assert done.stdout.split() == ["False", "False", "0x5eed3"], done.stderr


@pytest.fixture(scope="module")
def allocation_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Build `allocation_failure` for an allocation of 3 MiB on cuda:1."""
    return ctypes.CDLL(str(library(tmp_path_factory.mktemp("allocation"), "a.so", MESSAGE)))


@pytest.mark.parametrize(
    "code, what, expected",
    [
        (0, "", "CUDA out of memory. Tried to allocate 3 MiB on cuda:1 (API call failed)"),
        (2, "out of memory", "CUDA out of memory. Tried to allocate 3 MiB on cuda:1"),
        (700, "an illegal memory access", "CUDA error 700 (an illegal memory access) on cuda:1"),
    ],
)
def test_failed_allocation_names_its_reason(
    allocation_library: ctypes.CDLL, code: int, what: str, expected: str
) -> None:
    """Check that a fault of an earlier kernel is not reported as a lack of memory."""
    text = ctypes.create_string_buffer(500)
    allocation_library.message(code, what.encode(), text, ctypes.c_long(500))
    message = text.value.decode()
    assert message.startswith(expected)
    assert ("out of memory" in message) == (code in (0, 2))
