"""What vehicles and people are built of: solids in shares of the length, width and height of whoever they belong to.

Knows shapes and materials; knows nothing about traffic, maps or sensors.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from sim.solids import Material, Shape

Color = tuple[int, int, int]
FAR_M, MIDDLE_M, CLOSE_M = 1000.0, 90.0, 45.0
_DARK: Color = (22, 22, 24)
_GLASS: Color = (38, 48, 58)
_SILVER: Color = (150, 152, 156)
_RED: Color = (120, 12, 14)
_AMBER: Color = (150, 80, 10)
_WHITE: Color = (225, 228, 230)
_PLATE: Color = (225, 225, 215)
_SKIN: Color = (196, 150, 124)
_HAIR: Color = (58, 44, 36)
_WARNING: Color = (190, 24, 28)
_ORANGE: Color = (222, 88, 20)


class Lamp(IntEnum):
    """What makes a part of a vehicle light up."""

    NONE = 0
    BRAKE = 1
    LEFT = 2
    RIGHT = 3


class Part(NamedTuple):
    """A solid of a body: x and y in shares of its length and width from its middle, z in shares of its height from the ground.

    own: brightness of the body's own colour, or 0 where the part has its `color`. reach_m: from further away it is left out.
    turned: looks backwards. swing: how far it moves ahead and back as its owner walks or pedals, in shares of the length.
    """

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    material: Material
    color: Color = (0, 0, 0)
    own: float = 0.0
    lamp: Lamp = Lamp.NONE
    reach_m: float = FAR_M
    shape: Shape = Shape.BOX
    turned: bool = False
    swing: float = 0.0


def _wheels(places: tuple[float, ...], half_length: float, half_height: float, hub: float = 0.55) -> list[Part]:
    """Wheels on both sides, their outer face just outside the body's, and the hubs in them."""
    parts: list[Part] = []
    for x in places:
        for side in (-1, 1):
            half = (half_length, 0.06, half_height)
            center = (x, side * 0.445, half_height)
            parts.append(Part(center, half, Material.RUBBER, _DARK, reach_m=MIDDLE_M, shape=Shape.WHEEL))
            rim = (hub * half_length, 0.006, hub * half_height)
            spot = (x, side * 0.503, half_height)
            parts.append(Part(spot, rim, Material.METAL, _SILVER, reach_m=CLOSE_M, shape=Shape.WHEEL))
    return parts


def _lamps(rear_z: float, front_z: float, half_height: float, half_width: float = 0.09) -> list[Part]:
    parts: list[Part] = []
    wide, narrow = (0.008, half_width, half_height), (0.010, 0.02, half_height)
    for side, lamp in ((1, Lamp.LEFT), (-1, Lamp.RIGHT)):
        parts += [
            Part((-0.497, side * (0.46 - half_width), rear_z), wide, Material.LAMP_OFF, _RED, lamp=Lamp.BRAKE),
            Part((-0.496, side * 0.475, rear_z), narrow, Material.LAMP_OFF, _AMBER, lamp=lamp, reach_m=MIDDLE_M),
            Part((0.496, side * 0.475, front_z), narrow, Material.LAMP_OFF, _AMBER, lamp=lamp, reach_m=MIDDLE_M),
            Part((0.497, side * (0.45 - half_width), front_z), wide, Material.LAMP_OFF, _WHITE, reach_m=MIDDLE_M),
        ]
    return parts


def car() -> list[Part]:
    """A saloon: sloping windscreen and rear window between a bonnet and a boot."""
    paint, glass, plain = Material.PAINT, Material.GLASS, Material.PLAIN
    return [
        Part((0.0, 0.0, 0.335), (0.5, 0.5, 0.185), paint, own=1.0),
        Part((-0.12, 0.0, 0.55), (0.37, 0.485, 0.035), paint, own=1.0),
        Part((0.37, 0.0, 0.55), (0.12, 0.47, 0.035), paint, own=1.0, shape=Shape.WEDGE),
        Part((-0.10, 0.0, 0.76), (0.18, 0.43, 0.18), glass, _GLASS),
        Part((0.17, 0.0, 0.765), (0.09, 0.43, 0.185), glass, _GLASS, shape=Shape.WEDGE),
        Part((-0.365, 0.0, 0.765), (0.085, 0.43, 0.185), glass, _GLASS, shape=Shape.WEDGE, turned=True),
        Part((-0.10, 0.0, 0.965), (0.20, 0.42, 0.025), paint, own=1.0),
        Part((-0.10, 0.0, 0.76), (0.012, 0.438, 0.18), paint, own=0.8, reach_m=CLOSE_M),
        Part((0.07, 0.0, 0.76), (0.012, 0.436, 0.18), paint, own=0.8, reach_m=CLOSE_M),
        Part((-0.27, 0.0, 0.76), (0.014, 0.436, 0.18), paint, own=0.8, reach_m=CLOSE_M),
        Part((0.0, 0.0, 0.13), (0.495, 0.48, 0.03), plain, _DARK, reach_m=CLOSE_M),
        Part((-0.501, 0.0, 0.36), (0.002, 0.14, 0.035), Material.SIGN, _PLATE, reach_m=CLOSE_M),
        Part((0.501, 0.0, 0.27), (0.002, 0.14, 0.035), Material.SIGN, _PLATE, reach_m=CLOSE_M),
        Part((0.501, 0.0, 0.40), (0.002, 0.24, 0.035), plain, _DARK, reach_m=CLOSE_M),
        Part((-0.499, 0.0, 0.22), (0.004, 0.46, 0.05), plain, _DARK, reach_m=CLOSE_M),
        Part((0.10, 0.0, 0.59), (0.015, 0.52, 0.035), paint, own=0.7, reach_m=CLOSE_M),
        *_wheels((0.31, -0.31), 0.072, 0.215),
        *_lamps(0.46, 0.42, 0.045),
    ]


def van() -> list[Part]:
    """A delivery van: a short sloping nose before a high body."""
    paint, glass = Material.PAINT, Material.GLASS
    return [
        Part((-0.10, 0.0, 0.55), (0.40, 0.5, 0.43), paint, own=1.0),
        Part((0.40, 0.0, 0.30), (0.10, 0.49, 0.18), paint, own=1.0),
        Part((0.38, 0.0, 0.68), (0.08, 0.46, 0.20), glass, _GLASS, shape=Shape.WEDGE),
        Part((0.22, 0.0, 0.70), (0.065, 0.505, 0.13), glass, _GLASS, reach_m=MIDDLE_M),
        Part((-0.5, 0.24, 0.72), (0.006, 0.18, 0.13), glass, _GLASS, reach_m=MIDDLE_M),
        Part((-0.5, -0.24, 0.72), (0.006, 0.18, 0.13), glass, _GLASS, reach_m=MIDDLE_M),
        Part((0.0, 0.0, 0.10), (0.49, 0.47, 0.03), Material.PLAIN, _DARK, reach_m=CLOSE_M),
        Part((-0.502, 0.0, 0.40), (0.002, 0.14, 0.025), Material.SIGN, _PLATE, reach_m=CLOSE_M),
        Part((0.27, 0.0, 0.58), (0.012, 0.53, 0.05), Material.PLAIN, _DARK, reach_m=CLOSE_M),
        *_wheels((0.32, -0.30), 0.068, 0.155),
        *_lamps(0.36, 0.33, 0.06, 0.06),
    ]


def bus() -> list[Part]:
    """A city bus: glass all around, a line sign in front."""
    paint, glass, plain = Material.PAINT, Material.GLASS, Material.PLAIN
    pillars = [
        Part((x, 0.0, 0.66), (0.006, 0.508, 0.19), paint, own=0.7, reach_m=CLOSE_M) for x in (-0.3, -0.1, 0.1, 0.3)
    ]
    return [
        Part((0.0, 0.0, 0.55), (0.5, 0.5, 0.43), paint, own=1.0),
        Part((0.5, 0.0, 0.58), (0.006, 0.45, 0.24), glass, _GLASS),
        Part((0.502, 0.0, 0.89), (0.004, 0.36, 0.05), Material.LAMP_OFF, (240, 170, 40), reach_m=MIDDLE_M),
        Part((-0.02, 0.0, 0.66), (0.45, 0.505, 0.18), glass, _GLASS, reach_m=MIDDLE_M),
        Part((0.38, -0.42, 0.50), (0.045, 0.087, 0.34), glass, _GLASS, reach_m=MIDDLE_M),
        Part((-0.02, -0.42, 0.50), (0.05, 0.087, 0.34), glass, _GLASS, reach_m=MIDDLE_M),
        Part((-0.5, 0.0, 0.68), (0.005, 0.42, 0.16), glass, _GLASS, reach_m=MIDDLE_M),
        Part((0.0, 0.0, 0.10), (0.495, 0.48, 0.03), plain, _DARK, reach_m=CLOSE_M),
        *pillars,
        *_wheels((0.30, -0.26), 0.042, 0.155, 0.5),
        *_lamps(0.30, 0.24, 0.04),
    ]


def truck() -> list[Part]:
    """A lorry: a cab, and a box on a frame."""
    paint, glass, metal, plain = Material.PAINT, Material.GLASS, Material.METAL, Material.PLAIN
    return [
        Part((0.39, 0.0, 0.43), (0.11, 0.49, 0.31), paint, own=1.0),
        Part((0.36, 0.0, 0.79), (0.08, 0.45, 0.06), paint, own=1.0, shape=Shape.WEDGE, turned=True),
        Part((0.499, 0.0, 0.56), (0.006, 0.44, 0.13), glass, _GLASS, reach_m=MIDDLE_M),
        Part((0.41, 0.0, 0.57), (0.05, 0.495, 0.11), glass, _GLASS, reach_m=MIDDLE_M),
        Part((0.50, 0.0, 0.30), (0.004, 0.36, 0.08), plain, _DARK, reach_m=CLOSE_M),
        Part((0.47, 0.0, 0.58), (0.012, 0.54, 0.06), plain, _DARK, reach_m=CLOSE_M),
        Part((-0.12, 0.0, 0.61), (0.38, 0.5, 0.39), plain, (208, 208, 202)),
        Part((-0.12, 0.0, 0.30), (0.381, 0.503, 0.02), paint, own=0.9, reach_m=MIDDLE_M),
        Part((-0.501, 0.0, 0.61), (0.002, 0.01, 0.36), metal, (96, 96, 98), reach_m=CLOSE_M),
        Part((-0.02, 0.0, 0.17), (0.46, 0.34, 0.045), metal, (50, 52, 55), reach_m=MIDDLE_M),
        Part((-0.49, 0.0, 0.13), (0.008, 0.46, 0.02), metal, (70, 72, 75), reach_m=MIDDLE_M),
        *_wheels((0.37, -0.24, -0.37), 0.058, 0.135),
        *_lamps(0.20, 0.20, 0.03, 0.07),
    ]


def _rider(shift: float) -> list[Part]:
    """Whoever sits on two wheels: legs that pedal, a bent back, a head with a helmet."""
    cloth = Material.CLOTH
    legs = [
        Part((0.02 + shift, side * 0.2, z), half, cloth, (46, 52, 70), reach_m=MIDDLE_M, swing=side * swing)
        for side in (-1, 1)
        for z, half, swing in ((0.47, (0.09, 0.13, 0.055), 0.03), (0.32, (0.05, 0.11, 0.12), 0.07))
    ]
    return [
        *legs,
        Part((-0.07 + shift, 0.0, 0.68), (0.10, 0.34, 0.17), cloth, own=0.85, shape=Shape.ELLIPSOID),
        Part((0.08 + shift, 0.0, 0.70), (0.11, 0.36, 0.035), cloth, own=0.75, reach_m=CLOSE_M),
        Part((0.0 + shift, 0.0, 0.90), (0.065, 0.19, 0.075), cloth, _SKIN, shape=Shape.ELLIPSOID),
        Part((-0.01 + shift, 0.0, 0.935), (0.075, 0.21, 0.06), Material.PLAIN, (60, 58, 56), shape=Shape.ELLIPSOID),
    ]


def bicycle() -> list[Part]:
    """A bicycle and its rider."""
    paint = Material.PAINT
    wheel = (0.18, 0.035, 0.19)
    return [
        Part((0.31, 0.0, 0.19), wheel, Material.RUBBER, (40, 40, 42), reach_m=MIDDLE_M, shape=Shape.WHEEL),
        Part((-0.31, 0.0, 0.19), wheel, Material.RUBBER, (40, 40, 42), reach_m=MIDDLE_M, shape=Shape.WHEEL),
        Part((0.0, 0.0, 0.36), (0.24, 0.05, 0.03), paint, own=1.0),
        Part((-0.10, 0.0, 0.42), (0.02, 0.04, 0.10), paint, own=1.0, reach_m=CLOSE_M),
        Part((0.22, 0.0, 0.46), (0.02, 0.04, 0.12), paint, own=1.0, reach_m=CLOSE_M),
        Part((0.22, 0.0, 0.58), (0.02, 0.42, 0.012), Material.METAL, _DARK, reach_m=CLOSE_M),
        Part((-0.47, 0.0, 0.40), (0.01, 0.10, 0.025), Material.LAMP_OFF, _RED, lamp=Lamp.BRAKE, reach_m=MIDDLE_M),
        *_rider(0.0),
    ]


def motorcycle() -> list[Part]:
    """A motorcycle and its rider."""
    paint = Material.PAINT
    wheel = (0.15, 0.10, 0.20)
    return [
        Part((0.33, 0.0, 0.20), wheel, Material.RUBBER, _DARK, reach_m=MIDDLE_M, shape=Shape.WHEEL),
        Part((-0.33, 0.0, 0.20), wheel, Material.RUBBER, _DARK, reach_m=MIDDLE_M, shape=Shape.WHEEL),
        Part((0.0, 0.0, 0.28), (0.20, 0.22, 0.10), Material.METAL, (60, 62, 66)),
        Part((0.08, 0.0, 0.46), (0.16, 0.22, 0.09), paint, own=1.0, shape=Shape.ELLIPSOID),
        Part((-0.22, 0.0, 0.45), (0.18, 0.18, 0.05), Material.PLAIN, _DARK),
        Part((0.27, 0.0, 0.55), (0.02, 0.48, 0.02), Material.METAL, _DARK, reach_m=CLOSE_M),
        Part((0.33, 0.0, 0.49), (0.03, 0.14, 0.06), Material.LAMP_OFF, _WHITE, reach_m=MIDDLE_M),
        Part((-0.43, 0.0, 0.44), (0.015, 0.14, 0.03), Material.LAMP_OFF, _RED, lamp=Lamp.BRAKE),
        *_rider(-0.08),
    ]


def pedestrian() -> list[Part]:
    """Someone on foot: legs and arms that swing against each other."""
    cloth, limbs = Material.CLOTH, []
    for side in (-1, 1):
        limbs += [
            Part((0.0, side * 0.19, 0.385), (0.17, 0.16, 0.125), cloth, (50, 56, 74), swing=0.28 * side),
            Part((-0.03, side * 0.19, 0.15), (0.14, 0.13, 0.115), cloth, (50, 56, 74), swing=0.62 * side),
            Part((0.05, side * 0.19, 0.022), (0.22, 0.14, 0.022), Material.PLAIN, _DARK, reach_m=CLOSE_M, swing=0.66 * side),
            Part(
                (0.0, side * 0.44, 0.64), (0.11, 0.085, 0.17), cloth, own=0.85, reach_m=MIDDLE_M,
                shape=Shape.CYLINDER, swing=-0.22 * side,
            ),
        ]  # fmt: skip
    return [
        *limbs,
        Part((0.0, 0.0, 0.65), (0.27, 0.37, 0.16), cloth, own=1.0, shape=Shape.CYLINDER),
        Part((0.0, 0.0, 0.79), (0.27, 0.42, 0.055), cloth, own=1.0, shape=Shape.ELLIPSOID),
        Part((0.02, 0.0, 0.92), (0.20, 0.17, 0.072), cloth, _SKIN, shape=Shape.ELLIPSOID),
        Part((-0.03, 0.0, 0.945), (0.20, 0.18, 0.055), Material.PLAIN, _HAIR, reach_m=MIDDLE_M, shape=Shape.ELLIPSOID),
    ]


def barrier() -> list[Part]:
    """A board of road works on two feet: red and white, with a lamp on top."""
    plain, sign = Material.PLAIN, Material.SIGN
    boards = [
        Part((0.0, -0.4 + 0.2 * k, z), (0.07, 0.1, 0.10), sign, _WARNING if (k + row) % 2 == 0 else _WHITE)
        for row, z in enumerate((0.80, 0.48))
        for k in range(5)
    ]
    feet = [Part((0.0, side * 0.38, 0.03), (0.5, 0.06, 0.03), plain, _DARK) for side in (-1, 1)]
    posts = [Part((0.0, side * 0.38, 0.45), (0.06, 0.02, 0.45), Material.METAL, _SILVER) for side in (-1, 1)]
    lamp = Part((0.0, 0.38, 0.95), (0.22, 0.06, 0.05), Material.LAMP_ON, (255, 176, 32), shape=Shape.CYLINDER)
    return [*boards, *feet, *posts, lamp]


def cone() -> list[Part]:
    """A traffic cone: a foot, and orange and white rings that get smaller."""
    rings = [
        Part((0.0, 0.0, 0.06 + 0.19 * k + 0.095), (r, r, 0.095), Material.SIGN, color, shape=Shape.CYLINDER)
        for k, (r, color) in enumerate(
            ((0.34, _ORANGE), (0.26, _WHITE), (0.19, _ORANGE), (0.12, _WHITE), (0.07, _ORANGE))
        )
    ]
    return [Part((0.0, 0.0, 0.03), (0.5, 0.5, 0.03), Material.PLAIN, _DARK), *rings]
