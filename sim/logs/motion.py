"""Motion of a recording's car, from messages of odometry or from frames that move. Knows frames; knows nothing about encodings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse
from sim.logs.log import LogSummary
from sim.logs.mounting import FrameTree
from sim.logs.odometry import Odometry, odometry_from_samples
from sim.logs.recorded import RecordedOdometry, RecordedTransform


def motion_of(
    samples: list[RecordedOdometry],
    above: Mapping[str, list[RecordedTransform]],
    tree: FrameTree,
    summary: LogSummary,
) -> Odometry | None:
    """Motion from odometry messages, or where there are none from the transforms above the base frame."""
    if not samples:
        return _motion_of_frames(above, tree.base_frame, summary)
    body = samples[0].body_frame
    body_from_base = np.eye(4)
    if body and body != tree.base_frame:
        base_from_body = tree.base_from(body)
        if base_from_body is None:
            summary.warn(f"odometry is of {body!r}, which /tf does not connect to {tree.base_frame!r}: taken as equal")
        else:
            body_from_base = inverse(base_from_body)
    return odometry_from_samples(
        [s.timestamp_us for s in samples],
        [s.world_from_body @ body_from_base for s in samples],
        [s.speed_mps for s in samples],
        [s.yaw_rate_radps for s in samples],
    )


def _motion_of_frames(
    above: Mapping[str, list[RecordedTransform]], base_frame: str, summary: LogSummary
) -> Odometry | None:
    """Motion from the first transform on the way up from the base frame that changes, or of a car that stands.

    above: frame to the transforms that lead to it from its parent, for the base frame and those it hangs from. One that is said
        again and again and never changes is a mounting (base_footprint to base_link), if there is another above that does.
    """
    frame, frame_from_base = base_frame, np.eye(4)
    motion: list[RecordedTransform] = []
    poses: list[NDArray[np.float64]] = []
    seen: set[str] = set()
    while frame not in seen and above.get(frame):
        seen.add(frame)
        first = above[frame][0]
        steps = [t for t in above[frame] if t.parent == first.parent]
        changes = any((t.parent_from_child != first.parent_from_child).any() for t in steps)
        if len(steps) > 1:
            motion, poses = steps, [t.parent_from_child @ frame_from_base for t in steps]
        if changes:
            break
        frame, frame_from_base = first.parent, first.parent_from_child @ frame_from_base
    if motion:
        summary.warn(f"no odometry: motion is taken from /tf ({motion[0].parent} to {motion[0].child})")
    else:
        summary.warn("no odometry and no moving /tf: speed, route and recorded action are unknown")
    missing = [None] * len(motion)
    return odometry_from_samples([t.timestamp_us for t in motion], poses, missing, missing)
