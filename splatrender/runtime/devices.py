"""Devices: the choice of one, and transfers to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from splatrender import _extension
from splatrender.errors import InputError

BACKENDS = ("auto", "cpu", "cuda")
OLDEST_GPU = (7, 5)  # compute capability from which on there are kernels: Turing


def has_cuda_kernels() -> bool:
    """Return true if the extension was built with the CUDA kernels."""
    _extension.load()
    return torch._C._dispatch_has_kernel_for_dispatch_key("splatrender::blend", "CUDA")


def missing_for_cuda() -> list[str]:
    """Return the obstacles to the use of a GPU, a sentence each; empty if there are none."""
    missing = []
    if not has_cuda_kernels():
        missing.append("splatrender was built without CUDA kernels")
    if torch.version.cuda is None:
        missing.append(f"torch {torch.__version__} is a build without CUDA")
    elif not torch.cuda.is_available():
        missing.append("torch finds no NVIDIA GPU with a working driver")
    elif torch.cuda.get_device_capability() < OLDEST_GPU:
        found, least = torch.cuda.get_device_capability(), OLDEST_GPU
        missing.append(
            f"{torch.cuda.get_device_name()} has compute capability {found[0]}.{found[1]}, "
            f"and the kernels need {least[0]}.{least[1]}"
        )
    return missing


def choose_device(backend: str = "auto") -> torch.device:
    """Return the device to train and render on.

    Args:
        backend: "cpu", "cuda" (torch's current GPU), or "auto" for CUDA where it works.

    Returns:
        A device on which the kernels run.

    Raises:
        InputError: `backend` is none of the three, or CUDA was asked for and does not work here;
            the message says what is missing.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: expected 'auto', 'cpu' or 'cuda', got {backend!r}")
    if backend == "cpu":
        return torch.device("cpu")
    missing = missing_for_cuda()
    if not missing:
        return torch.device("cuda", torch.cuda.current_device())
    if backend == "cuda":
        raise InputError(f"backend: expected 'auto' or 'cpu', got 'cuda': {' and '.join(missing)}")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Return the name of the device: "cpu", or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a tensor to a device without waiting for its queued work.

    Such a copy needs pinned memory, which torch keeps until the copy is done. A tensor that carries
    a gradient is copied in the ordinary way.

    Args:
        tensor: anything; returned as it is if nothing changes.
        device: where to.
        dtype: None keeps it.

    Returns:
        The copy, for use on the device's current stream.
    """
    dtype = dtype or tensor.dtype
    plain = tensor.requires_grad or torch.compiler.is_compiling()
    if device.type not in ("cpu", "meta") and tensor.device.type == "cpu" and not plain:
        return tensor.to(dtype).pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype)


def read(numbers: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the values of numbers on a device by one transfer: each one waits for the device.

    Args:
        numbers: tensors of one element on one device, by name; integers below 2^53.

    Example:
        >>> read({"one": torch.tensor(1), "half": torch.tensor(0.5)})
        {'one': 1.0, 'half': 0.5}
    """
    values = torch.stack([number.detach().double() for number in numbers.values()]).tolist()
    return dict(zip(numbers, values, strict=True))


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its queued work, as before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return true if an exception of torch or of the kernels means that memory is not enough.

    Not all of them are `torch.OutOfMemoryError`: on a CPU, and from within operators, they are
    RuntimeErrors that differ in their words alone.
    """
    words = ("out of memory", "not enough memory", "can't allocate memory")
    told = isinstance(error, RuntimeError) and any(part in str(error) for part in words)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or told


def is_device_fault(error: BaseException) -> bool:
    """Return true if an exception of torch or of the kernels reports a fault of CUDA.

    Such a fault, for example an illegal memory access, fails every later call in the process.

    Example:
        >>> is_device_fault(RuntimeError("shade: shade_kernel: CUDA error 700 (illegal access)"))
        True
    """
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
