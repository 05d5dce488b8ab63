"""Comfort of a driven path with the bounds of nuPlan, and the smoothing that nuPlan takes derivatives with.

Knows arrays over ticks; knows nothing about roads or others. Sources: nuplan-devkit's `ego_is_comfortable` (bounds, windows
and polynomials) and NAVSIM's, which in its first version lets some windows be as long as the plan; filter: Savitzky and
Golay, Anal. Chem. 36 (1964).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

LONGITUDINAL_MPS2 = (-4.05, 2.40)
LATERAL_MPS2 = 4.89
YAW_ACCELERATION_RADPS2 = 1.93
YAW_RATE_RADPS = 0.95
LONGITUDINAL_JERK_MPS3 = 4.13
JERK_MPS3 = 8.37

# Windows: of accelerations, of jerks, and of both derivatives of the heading.
SMOOTHING_TICKS, JERK_TICKS, YAW_TICKS = 8, 15, 5


@dataclass(frozen=True)
class Motion:
    """What comfort is judged by, (T,) float64 each, SI, smoothed."""

    longitudinal_mps2: F64
    lateral_mps2: F64
    yaw_rate_radps: F64
    yaw_acceleration_radps2: F64
    longitudinal_jerk_mps3: F64
    jerk_mps3: F64


def fit_derivative(values: F64, window: int, order: int, derivative: int, dt_s: float) -> F64:
    """The derivative of a polynomial fitted to `window` values around each; at the ends, of the first or last such fit.

    values: (T,) float64, dt_s apart. A series shorter than the window is its own window, and the order falls with it.
    Returns (T,) float64. Exact for polynomials up to the order.
    """
    count = len(values)
    window = min(window, count)
    order = min(order, window - 1)
    if order < derivative:
        return np.zeros(count)
    # As SciPy does it: an even window is asked in its middle, between two values, and the ends take half a window each.
    weights = _fit_weights(window, order, derivative, (window - 1) / 2.0)
    half = window // 2
    out = np.empty(count)
    first = (window - 1) // 2  # values before the tick that its window holds
    inner = np.convolve(values, weights[::-1], mode="valid")
    out[first : first + len(inner)] = inner
    for k in range(half):
        out[k] = _fit_weights(window, order, derivative, float(k)) @ values[:window]
        at = window - half + k
        out[count - half + k] = _fit_weights(window, order, derivative, float(at)) @ values[count - window :]
    return out / dt_s**derivative


@lru_cache(maxsize=1024)
def _fit_weights(window: int, order: int, derivative: int, at: float) -> F64:
    """(window,) weights that give the derivative, at place `at`, of the least-squares polynomial through the values."""
    powers = np.arange(order + 1)
    matrix = (np.arange(window, dtype=np.float64) - at)[:, None] ** powers
    return np.asarray(np.linalg.pinv(matrix)[derivative] * factorial(derivative))


def motion_of(
    speed_mps: F64, acceleration_mps2: F64, yaw_rad: F64, yaw_rate_radps: F64, dt_s: float, one_fit: bool = False
) -> Motion:
    """Motion from a driven path, (T,) float64 each; lateral acceleration is speed times yaw rate.

    one_fit: as in NAVSIM's PDMS, where a single parabola over the whole path gives the accelerations, and another the jerks.
    """
    count = len(speed_mps)
    if count < 2:
        return Motion(*(np.zeros(count) for _ in range(6)))
    smoothing, jerk = (count, count) if one_fit else (SMOOTHING_TICKS, JERK_TICKS)
    lateral = speed_mps * yaw_rate_radps
    heading = np.unwrap(yaw_rad)
    magnitude = fit_derivative(np.hypot(acceleration_mps2, lateral), SMOOTHING_TICKS, 2, 0, dt_s)
    longitudinal = fit_derivative(acceleration_mps2, SMOOTHING_TICKS, 2, 0, dt_s)
    return Motion(
        longitudinal_mps2=fit_derivative(acceleration_mps2, smoothing, 2, 0, dt_s),
        lateral_mps2=fit_derivative(lateral, smoothing, 2, 0, dt_s),
        yaw_rate_radps=fit_derivative(heading, YAW_TICKS, 2, 1, dt_s),
        yaw_acceleration_radps2=fit_derivative(heading, YAW_TICKS, 3, 2, dt_s),
        longitudinal_jerk_mps3=fit_derivative(longitudinal, jerk, 2, 1, dt_s),
        jerk_mps3=fit_derivative(magnitude, jerk, 2, 1, dt_s),
    )


def comfortable(motion: Motion) -> NDArray[np.bool_]:
    """(T,) bool: whether every bound holds at each tick."""
    low, high = LONGITUDINAL_MPS2
    return np.asarray(
        (motion.longitudinal_mps2 > low)
        & (motion.longitudinal_mps2 < high)
        & (np.abs(motion.lateral_mps2) < LATERAL_MPS2)
        & (np.abs(motion.yaw_rate_radps) < YAW_RATE_RADPS)
        & (np.abs(motion.yaw_acceleration_radps2) < YAW_ACCELERATION_RADPS2)
        & (np.abs(motion.longitudinal_jerk_mps3) < LONGITUDINAL_JERK_MPS3)
        & (np.abs(motion.jerk_mps3) < JERK_MPS3)
    )
