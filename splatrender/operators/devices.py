"""One check that every stage makes before torch chooses a kernel by device."""

from __future__ import annotations

from torch import Tensor

from splatrender.errors import InputError


def require_one_device(**tensors: Tensor | None) -> None:
    """Refuse tensors of a call that lie on different devices.

    Args:
        tensors: name = tensor; None is skipped. The first one sets the device.

    Raises:
        InputError: names the first tensor that lies elsewhere.

    Example:
        >>> import torch
        >>> require_one_device(means=torch.ones(1), quats=None)
    """
    expected = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if expected is None:
            expected = tensor.device
        elif tensor.device != expected:
            raise InputError(f"{name}: expected device {expected}, found device {tensor.device}")
