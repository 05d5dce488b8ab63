"""Training episodes in which whoever makes a mistake goes back to before it and tries again.

Mistakes of a driver that drives well are rare, so most of what it learns from is an empty road. Here it meets each of its mistakes
several times, and the attempts begin in one and the same state, so that they differ by what the driver did.
Composes environments; knows nothing about policies.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.drive_batch import DriveBatch, SavedEnvironment
from sim.env import DriveVectorEnv
from sim.world import TICK_S

EVERY_S = 2.0  # between states that are kept to go back to


class RetryConfig(BaseModel):
    """How often, and from where to where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: int = Field(default=8, ge=1, le=1000, description="attempts at each mistake, whether they pass it or not")
    back_s: float = Field(
        default=8.0, ge=1.0, le=60.0, description="attempts begin so long before the mistake, or up to 2 s earlier"
    )
    past_s: float = Field(
        default=3.0, ge=0.1, le=60.0, description="an attempt has passed the mistake so long after it, and is cut off"
    )


@dataclass
class _Drive:
    """What one environment is doing. kept: states to go back to, the oldest first. start: of the attempts at a mistake, None in an
    ordinary drive; left: attempts still to come; until: tick at which the mistake is passed."""

    kept: deque[SavedEnvironment]
    start: SavedEnvironment | None = None
    left: int = 0
    until: int = 0


class RetryingVectorEnv(DriveVectorEnv):
    """As `DriveVectorEnv`, but an episode that an infraction ends is followed by attempts from before the infraction.

    An attempt ends by an infraction, by arrival, or truncated once the mistake is passed; the last one then goes on as the episode
    that it is. An attempt's own mistakes are not gone back to. In `final_info`, `is_success` is of ordinary drives only,
    `retry_success` of attempts only, and `is_retry` says which it was.
    """

    def __init__(self, batch: DriveBatch, config: RetryConfig, copy: bool = True) -> None:
        super().__init__(copy=copy, batch=batch)
        self.config = config
        self._back = round(config.back_s / TICK_S)
        self._every = round(EVERY_S / TICK_S)
        self._past = round(config.past_s / TICK_S)
        self._drives = [self._begun() for _ in range(self.num_envs)]

    def _begun(self) -> _Drive:
        return _Drive(deque(maxlen=self._back // self._every + 2))

    def _start(self, started: NDArray[np.bool_]) -> None:
        super()._start(started)
        for e in np.flatnonzero(started):
            self._drives[e] = self._begun()
            self._drives[e].kept.append(self.batch.save(int(e)))

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One tick of all environments; see `DriveVectorEnv.step`."""
        outcome = super().step(actions)
        tick = self.batch.world.state.tick
        for e, drive in enumerate(self._drives):
            passed = drive.start is not None and drive.left == 0 and tick[e] >= drive.until  # by the last attempt
            if passed:
                drive = self._drives[e] = self._begun()
            if passed or (drive.start is None and tick[e] > 0 and tick[e] % self._every == 0):
                drive.kept.append(self.batch.save(e))
        return outcome

    def _cut_off(self) -> NDArray[np.bool_]:
        tick = self.batch.world.state.tick
        return np.array(
            [d.start is not None and d.left > 0 and tick[e] >= d.until for e, d in enumerate(self._drives)], np.bool_
        )

    def _go_on(self, finished: NDArray[np.bool_]) -> None:
        again: dict[int, SavedEnvironment] = {}
        for e in np.flatnonzero(finished).tolist():
            drive = self._drives[e]
            if drive.start is None and self._failed(e):
                now = int(self.batch.world.state.tick[e])
                early = [kept for kept in drive.kept if kept.tick <= now - self._back]
                drive.start = early[-1] if early else drive.kept[0]
                drive.left, drive.until = self.config.times, now + self._past
            if drive.start is not None and drive.left > 0:
                drive.left -= 1
                again[e] = drive.start
        if again:
            self.batch.go_back(again)
        fresh = finished & ~np.isin(np.arange(self.num_envs), list(again))
        if fresh.any():
            super()._go_on(fresh)

    def _failed(self, e: int) -> bool:
        return bool(self.batch.terminated[e]) and bool(self.batch.infractions(e))

    def _final_info(self, finished: NDArray[np.bool_]) -> dict[str, Any]:
        info = super()._final_info(finished)
        final = info["final_info"]
        retry = np.array([drive.start is not None for drive in self._drives], np.bool_)
        final |= {
            "_is_success": finished & ~retry,
            "retry_success": final["is_success"] & retry, "_retry_success": finished & retry,
            "is_retry": retry, "_is_retry": finished,
        }  # fmt: skip
        return info
