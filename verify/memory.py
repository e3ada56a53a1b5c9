"""Memory: a word to the C allocator, so that large tensors reuse memory instead of asking for it.

By default glibc hands blocks of more than 128 KiB back to the system at once and takes them again,
zeroed page by page, for the next tensor. Pulling back rows allocates the same sizes again and
again; on convolutional nets the page faults cost as much as the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of the two settings in glibc's malloc.h."""
KEPT = 256 * 2**20
"""Bytes of free memory kept at most."""
LARGEST = 32 * 2**20
"""Blocks beyond this size are still returned at once; glibc allows no more."""


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory for the next tensor; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
