"""Where sensors are mounted, from a recording's tree of frames (ROS /tf). Knows nothing about messages' encodings."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, se3
from sim.logs.log import LogError, LogSummary
from sim.logs.recorded import RecordedTransform

# Camera axes (x right, y down, z forward) in a body frame (x forward, y left, z up).
BODY_FROM_OPTICAL = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0])


class FrameTree:
    """Transforms between the frames of a recording, the first value of each: sensors do not move on their car.

    Args:
        base_frame: the frame that is taken for ego (x forward, y left, z up, under the rear axle).
    """

    def __init__(self, base_frame: str, summary: LogSummary) -> None:
        self.base_frame = base_frame
        self._summary = summary
        self._edges: dict[str, dict[str, NDArray[np.float64]]] = {}

    def add(self, transforms: Iterable[RecordedTransform]) -> None:
        for t in transforms:
            if t.child not in self._edges.get(t.parent, {}):
                self._edges.setdefault(t.parent, {})[t.child] = t.parent_from_child
                self._edges.setdefault(t.child, {})[t.parent] = inverse(t.parent_from_child)

    def base_from(self, frame: str) -> NDArray[np.float64] | None:
        """base_from_frame (4, 4), or None where no chain of transforms leads there."""
        reached = {self.base_frame: np.eye(4)}
        queue = deque([self.base_frame])
        while queue:
            at = queue.popleft()
            if at == frame:
                return reached[at]
            for neighbour, at_from_neighbour in self._edges.get(at, {}).items():
                if neighbour not in reached:
                    reached[neighbour] = reached[at] @ at_from_neighbour
                    queue.append(neighbour)
        return None

    def ego_from_lidar(self, topic: str, frame: str) -> NDArray[np.float64] | None:
        """Mounting pose of a LiDAR; None, with a warning, where it is not known.

        Raises:
            LogError: the recording has transforms, but no base frame.
        """
        if not self._edges:
            if frame != self.base_frame:
                self._summary.warn(f"{topic}: no /tf in the recording, so {frame!r} is taken for the ego frame itself")
            return np.eye(4)
        return self._known(topic, frame)

    def ego_from_camera(self, topic: str, frame: str) -> NDArray[np.float64] | None:
        """Mounting pose of a camera, camera axes being optical; None, with a warning, where it is not known.

        ROS asks for optical frames (REP 103), but some drivers stamp pictures with a body frame. Its z axis points up,
        where an optical one points at what is seen; the axes are turned then, with a warning.

        Raises:
            LogError: the recording has transforms, but no base frame.
        """
        if not self._edges and frame != self.base_frame:
            self._summary.warn(
                f"{topic}: no /tf in the recording, so its camera is taken to look ahead from the ego's origin"
            )
            return BODY_FROM_OPTICAL.copy()
        pose = np.eye(4) if frame == self.base_frame else self._known(topic, frame)
        if pose is not None and pose[2, 2] > 0.9:
            self._summary.warn(f"{topic}: frame {frame!r} has z up, not forward: its axes are turned to a camera's")
            pose = pose @ BODY_FROM_OPTICAL
        return pose

    def _known(self, topic: str, frame: str) -> NDArray[np.float64] | None:
        if frame != self.base_frame and self.base_frame not in self._edges:
            raise LogError(
                f"no frame {self.base_frame!r} in the recording's /tf, which knows {', '.join(sorted(self._edges))}: "
                "choose the one on the ground under the rear axle, x forward, as base frame (--base-frame)"
            )
        pose = self.base_from(frame)
        if pose is None:
            self._summary.warn(f"{topic}: left out, as /tf does not lead from {self.base_frame!r} to {frame!r}")
        return pose
