"""The network that comes with the package: where it lies, and which car it drives. Knows one file; needs no torch."""

from __future__ import annotations

from pathlib import Path

SHIPPED = "shipped"  # its name wherever a policy is named
SHIPPED_RIG = "small"  # the sensors it was trained with
SHIPPED_FILE = Path(__file__).resolve().parent / "data" / "policy.safetensors"
