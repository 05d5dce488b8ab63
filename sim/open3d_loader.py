"""The one place that imports Open3D, which needs the system library libusb-1.0: it comes from the libusb-package wheel."""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType


@cache
def load_open3d() -> ModuleType:
    """Open3D, with libusb loaded first so that no system package is needed."""
    import libusb_package

    ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    import open3d

    return open3d
