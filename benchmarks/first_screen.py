"""Makes the moving picture on the README's first screen: the shipped network drives an episode.

    python benchmarks/first_screen.py [--map grid-small] [--seed 0] [--seconds 20] [--out docs/images/drive.webp]

Every second tick of the video that `automedon drive --video` would write, at half its size and in real time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from planning.shipped import SHIPPED
from sim.drive import load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import run_episodes
from sim.step import Step
from sim.view import ViewContext, compose

EVERY = 2
WIDTH_PX, QUALITY = 880, 55


class Film:
    """A `StepObserver` that keeps pictures of an episode's first seconds."""

    def __init__(self, context: ViewContext, ticks: int) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self._context, self._ticks = context, ticks

    def on_step(self, step: Step) -> None:
        if step.tick >= self._ticks or step.tick % EVERY:
            return
        picture = compose(step, self._context)
        height = round(picture.shape[0] * WIDTH_PX / picture.shape[1])
        self.pictures.append(
            np.asarray(cv2.resize(picture, (WIDTH_PX, height), interpolation=cv2.INTER_AREA), np.uint8)
        )

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="grid-small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--weather", default="clear")
    parser.add_argument("--out", type=Path, default=Path("docs/images/drive.webp"))
    options = parser.parse_args()
    config = EnvConfig.of(map=options.map, weather=options.weather, max_steps=10 * options.seconds + 1)
    batch = DriveBatch(config, 1)
    film = Film(ViewContext(options.map, SHIPPED, options.seed, batch.map), 10 * options.seconds)
    (result,), _ = run_episodes(batch, load_policy(SHIPPED), [options.seed], lambda _: [film])
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in film.pictures]
    animation.durations = np.full(len(film.pictures), 100 * EVERY)
    if not cv2.imwriteanimation(str(options.out), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY]):
        raise SystemExit(f"cannot write {options.out}")
    size = options.out.stat().st_size / 1e6
    print(
        f"wrote {options.out}: {len(film.pictures)} pictures, {size:.1f} MB; infractions: {result.infractions or 'none'}"
    )


if __name__ == "__main__":
    main()
