"""Reuse of freed memory, for programs that often free and take blocks of the same size."""

from __future__ import annotations

import ctypes

# options of glibc's mallopt, from malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


LARGEST_THRESHOLD = 32 << 20  # glibc refuses a larger MMAP_THRESHOLD


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Ask the C library not to hand large freed blocks back to the operating system.

    Every step of training frees and takes gradients of some megabytes. Each time they come from the
    operating system anew, every page of them costs a fault, which takes longer than filling it.

    Args:
        limit: as much free memory [bytes] is kept, in blocks of up to 32 MiB.

    Returns:
        Whether the C library understood: glibc does, others have no such option.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    wishes = ((MMAP_THRESHOLD, LARGEST_THRESHOLD), (TRIM_THRESHOLD, limit), (TOP_PAD, 64 << 20))
    return all([bool(mallopt(option, value)) for option, value in wishes])
