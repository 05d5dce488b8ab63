"""Upright solids: what everything that stands in the world is made of.

Knows numpy; knows nothing about roads, traffic or sensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Material(IntEnum):
    """Decides shading and LiDAR reflectivity of a solid; uint8."""

    PLAIN = 0
    PAINT = 1
    GLASS = 2
    RUBBER = 3
    METAL = 4
    FACADE = 5
    ROOF = 6
    FOLIAGE = 7
    BARK = 8
    CONCRETE = 9
    SIGN = 10
    LAMP_OFF = 11
    LAMP_ON = 12
    CLOTH = 13


class Shape(IntEnum):
    """What of its box a solid fills; uint8.

    CYLINDER: upright, elliptical. WHEEL: a cylinder that lies, its axis along y. ELLIPSOID: touches all six sides. WEDGE: cut
    along the plane from the upper edge at the back (-x) to the lower edge in front (+x), of which the lower part stays.
    """

    BOX = 0
    CYLINDER = 1
    WHEEL = 2
    ELLIPSOID = 3
    WEDGE = 4


@dataclass(frozen=True)
class Boxes:
    """N upright solids, each in its oriented box, in the world frame (x east, y north, z up; metres, radians).

    center: (N, 3) float64. half_size: (N, 3) float64 along the box's own x y z. yaw_rad: (N,) float64.
    material: (N,) uint8 `Material`. semantic: (N,) uint8 `SemanticClass`. instance: (N,) int32, 0 for "no instance".
    color: (N, 3) uint8 RGB. shape: (N,) uint8 `Shape`.
    """

    center: NDArray[np.float64]
    half_size: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    material: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]
    color: NDArray[np.uint8]
    shape: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.center)
        shapes = {
            "center": (n, 3), "half_size": (n, 3), "yaw_rad": (n,), "material": (n,), "semantic": (n,),
            "instance": (n,), "color": (n, 3), "shape": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if not (np.isfinite(self.center).all() and np.isfinite(self.half_size).all() and (self.half_size > 0).all()):
            raise ValueError("boxes must be finite, with positive half sizes")
        if n and self.shape.max() > max(Shape):
            raise ValueError(f"shape must be at most {max(Shape)}, got {self.shape.max()}")

    def __len__(self) -> int:
        return len(self.center)


Color = tuple[int, int, int]


@dataclass
class BoxList:
    """Solids one after the other; those that follow belong to `instance`."""

    instance: int
    rows: list[tuple[float, ...]] = field(default_factory=list)
    looks: list[tuple[int, int, int, int]] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)

    def add(
        self, center: tuple[float, float, float], half: tuple[float, float, float], yaw: float,
        material: Material, semantic: int, color: Color, shape: Shape = Shape.BOX,
    ) -> None:  # fmt: skip
        """One more, its box half as large on each side as `half` says, m."""
        self.rows.append((*center, *half, yaw))
        self.looks.append((material, semantic, self.instance, shape))
        self.colors.append(color)

    def boxes(self) -> Boxes:
        """All of them."""
        rows = np.array(self.rows, np.float64).reshape(-1, 7)
        looks = np.array(self.looks, np.int32).reshape(-1, 4)
        return Boxes(
            center=np.ascontiguousarray(rows[:, :3]),
            half_size=np.ascontiguousarray(rows[:, 3:6]),
            yaw_rad=np.ascontiguousarray(rows[:, 6]),
            material=looks[:, 0].astype(np.uint8),
            semantic=looks[:, 1].astype(np.uint8),
            instance=np.ascontiguousarray(looks[:, 2]),
            color=np.array(self.colors, np.uint8).reshape(-1, 3),
            shape=looks[:, 3].astype(np.uint8),
        )
