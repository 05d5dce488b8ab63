"""What GNSS and IMU of a recording say at the instants of its frames.

Knows readings and where sensors are mounted; knows nothing about messages' encodings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.sensors import GnssFix, ImuSamples
from sim.logs.log import LogSummary
from sim.logs.mounting import FrameTree
from sim.logs.recorded import RecordedImu


class NavigationReadings:
    """All fixes and samples of a recording, in order of time; of equal times the first is kept.

    An IMU's axes are turned to those of the ego; with a warning they are taken for the same where nothing says how it is mounted.
    """

    def __init__(
        self, fixes: Sequence[GnssFix], samples: Sequence[RecordedImu], tree: FrameTree, summary: LogSummary
    ) -> None:
        self._fix_us, first = np.unique(np.array([fix.timestamp_us for fix in fixes], np.int64), return_index=True)
        self._fixes = [fixes[k] for k in first.tolist()]
        self._imu_us, first = np.unique(np.array([s.timestamp_us for s in samples], np.int64), return_index=True)
        turn = np.eye(3)
        if samples:
            frame = samples[0].frame_id
            pose = tree.base_from(frame)
            if pose is None:
                summary.warn(
                    f"the IMU's frame {frame!r} is not connected to {tree.base_frame!r}: its axes are taken for the ego's"
                )
            else:
                turn = pose[:3, :3]
        chosen = [samples[k] for k in first.tolist()]
        self._acceleration = np.array([s.acceleration_mps2 for s in chosen], np.float64).reshape(-1, 3) @ turn.T
        self._rate = np.array([s.angular_rate_radps for s in chosen], np.float64).reshape(-1, 3) @ turn.T

    def between(self, since_us: int, now_us: int) -> tuple[GnssFix | None, ImuSamples | None]:
        """The newest fix and all samples later than since_us, up to now_us; None where there is none."""
        first, last = np.searchsorted(self._fix_us, [since_us, now_us], side="right").tolist()
        fix = self._fixes[last - 1] if last > first else None
        first, last = np.searchsorted(self._imu_us, [since_us, now_us], side="right").tolist()
        if last <= first:
            return fix, None
        here = slice(first, last)
        return fix, ImuSamples(self._imu_us[here].copy(), self._acceleration[here].copy(), self._rate[here].copy())
