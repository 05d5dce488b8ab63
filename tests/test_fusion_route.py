"""Route fusion: places beside the route are where they should be, and each point of it brings what the maps hold there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusion.route import (
    AROUND,
    AROUND_ALONG_M,
    AROUND_ASIDE_M,
    AROUND_ROWS_M,
    NEAR_ALONG,
    NEAR_ASIDE_M,
    RouteFusion,
    beside,
    on_ground,
)
from perception.features import SensorFeatures
from perception.geometry import inverse, rotation_from_euler, se3
from perception.points import BevGrid
from perception.preprocess import project_rays
from perception.sensors import CameraCalibration

AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CAMERA = CameraCalibration(
    192, 96, np.array([[80.0, 0, 95.5], [0, 80.0, 47.5], [0, 0, 1]]),
    se3(rotation_from_euler(0.1, 0.05) @ AXES, [1.2, 0.3, 1.7]),
)  # fmt: skip
GRID = BevGrid()
SCALE_M = 25.0
SOURCES = {"camera": (72, 8), "points": (36, 16)}
VECTORS = {"ego": (1, 5), "route": (20, 2)}


def fusion(layers: int = 2, surroundings: bool = False) -> RouteFusion:
    torch.manual_seed(0)
    return RouteFusion(SOURCES, VECTORS, {"camera": CAMERA}, 8, (4, 8), GRID, SCALE_M, 32, layers, 4, 3, surroundings)


def bent_route(batch: int) -> torch.Tensor:
    """(batch, 20, 2) metres: 2.5 m apart along circles of different radii."""
    arc = 2.5 * torch.arange(1, 21)
    radius = torch.linspace(20.0, 60.0, batch)[:, None]
    return torch.stack([radius * torch.sin(arc / radius), radius * (1 - torch.cos(arc / radius))], dim=-1)


def features(batch: int = 2) -> SensorFeatures:
    generator = torch.Generator().manual_seed(1)
    points = tuple(torch.randn((batch, c, n, n), generator=generator) for c, n in ((4, 48), (8, 24), (16, 12)))
    picture = torch.randn((batch, 8, 6, 12), generator=generator)
    vectors = {"ego": torch.randn((batch, 1, 5), generator=generator), "route": bent_route(batch) / SCALE_M}
    everywhere = torch.ones(batch, dtype=torch.bool)
    return SensorFeatures({"camera": picture}, points, vectors, {"camera": everywhere, "points": everywhere})


def test_places_beside_a_circle_lie_on_circles_around_its_middle() -> None:
    arc = 0.5 * torch.arange(1, 101)
    radius = 30.0
    route = torch.stack([radius * torch.sin(arc / radius), radius * (1 - torch.cos(arc / radius))], dim=-1)[None]
    places = beside(route, (-3.5, 0.0, 2.0), (0.0, 0.5))
    assert places.shape == (1, 100, 6, 2)
    away = (places - torch.tensor([0.0, radius])).norm(dim=-1)[0, :-1]
    expected = torch.tensor(
        [radius + 3.5, radius, radius - 2.0] * 2
    )  # it bends to the left: left is nearer to its middle
    torch.testing.assert_close(away, expected.expand(99, 6), atol=0.02, rtol=0)
    torch.testing.assert_close(places[0, :-1, 4], (route[0, :-1] + route[0, 1:]) / 2)


def map_of_its_own_coordinates() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(2, 4, 48, 48): x, y, 1 and 0 of each cell of the finest map; and x and y of its rows and columns."""
    x = GRID.x_min_m + (torch.arange(48) + 0.5) * 2 * GRID.cell_m
    y = GRID.y_min_m + (torch.arange(48) + 0.5) * 2 * GRID.cell_m
    where = torch.stack([*torch.meshgrid(x, y, indexing="ij"), torch.ones(48, 48), torch.zeros(48, 48)])
    return where.expand(2, -1, -1, -1), x, y


def test_a_map_of_its_own_coordinates_is_read_back_along_the_route() -> None:
    given, network = features(), fusion()
    half, x, y = map_of_its_own_coordinates()
    tokens = network.along_route(replace(given, points=(half, *given.points[1:])))
    count = len(NEAR_ASIDE_M) * len(NEAR_ALONG)
    read = tokens[..., 2 : 2 + 4 * count].view(2, 20, count, 4)
    places = beside(bent_route(2), NEAR_ASIDE_M, NEAR_ALONG)
    inside = (places[..., 0] < x[-1]) & (places[..., 1].abs() < y[-1]) & (places[..., 0] > x[0])
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(read[inside][:, :2], places[inside], atol=1e-3, rtol=0)
    beyond = places[..., 0] > x[-1] + 2.0
    assert beyond.any()
    assert read[beyond].abs().max() == 0.0


def test_a_map_of_its_own_coordinates_is_read_back_around_the_car() -> None:
    half, _, _ = map_of_its_own_coordinates()
    given = features()
    tokens = fusion(surroundings=True).tokens(replace(given, points=(half, *given.points[1:])))[AROUND]
    assert tokens.shape == (2, len(AROUND_ROWS_M), len(AROUND_ALONG_M) * len(AROUND_ASIDE_M) * 4)
    read = tokens.view(2, len(AROUND_ROWS_M), len(AROUND_ALONG_M), len(AROUND_ASIDE_M), 4)
    for row, x0 in enumerate(AROUND_ROWS_M):
        for k, along in enumerate(AROUND_ALONG_M):
            torch.testing.assert_close(read[1, row, k, :, 0], torch.full((len(AROUND_ASIDE_M),), x0 + along))
            torch.testing.assert_close(read[1, row, k, :, 1], torch.tensor(AROUND_ASIDE_M))
    assert read[..., 2].min() > 0.999


def test_surroundings_reach_the_latent_and_no_others() -> None:
    """Something at the rear bumper, where the route does not look, and which is too small for a cell of eight metres."""
    given = features()
    changed = given.points[0].clone()
    row, column = int(-2.5 - GRID.x_min_m), int(2.5 - GRID.y_min_m)
    changed[1, :, row, column] += 1.0
    after = replace(given, points=(changed, *given.points[1:]))
    for surroundings in (False, True):
        network = fusion(surroundings=surroundings)
        with torch.no_grad():
            moved = (network.latent(after) - network.latent(given)).abs().amax(1)
        assert moved[0] == 0.0
        assert (moved[1] > 1e-4) == surroundings


def test_a_point_on_the_ground_is_where_the_camera_sees_it() -> None:
    route = bent_route(3).numpy()
    flat = np.concatenate([route, np.zeros((3, 20, 1), np.float32)], axis=2).reshape(-1, 3)
    to_camera = inverse(CAMERA.ego_from_camera)
    expected = project_rays(CAMERA, flat @ to_camera[:3, :3].T + to_camera[:3, 3])
    seen = np.isfinite(expected).all(1) & (np.abs(expected) < 250).all(1)
    assert seen.sum() > 30
    found = (on_ground(CAMERA, route).reshape(-1, 2) + 1) / 2 * [192, 96] - 0.5
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-3)
    behind = np.full((1, 1, 2), [-5.0, 0.0])
    assert np.abs(on_ground(CAMERA, behind)).max() > 1.5


@pytest.mark.parametrize("surroundings", [False, True])
def test_a_silent_sensor_has_no_influence(surroundings: bool) -> None:
    given, network = features(), fusion(surroundings=surroundings)
    for silent in ("camera", "points"):
        quiet = replace(given, present={**given.present, silent: torch.tensor([True, False])})
        louder = replace(
            quiet, pictures={"camera": given.pictures["camera"] + 1.0} if silent == "camera" else given.pictures,
            points=tuple(p + 1.0 for p in given.points) if silent == "points" else given.points,
        )  # fmt: skip
        with torch.no_grad():
            changed = (network.latent(louder) - network.latent(quiet)).abs().amax(1)
        assert changed[1] == 0.0
        assert changed[0] > 1e-3


@pytest.mark.parametrize("surroundings", [False, True])
def test_the_policy_sees_the_same_whether_or_not_places_are_asked_for(surroundings: bool) -> None:
    given, network = features(), fusion(3, surroundings)
    with torch.no_grad():
        fused = network.fuse(given)
        torch.testing.assert_close(fused.latent, network.latent(given), rtol=1e-5, atol=1e-5)
    assert fused.latent.shape == (2, network.out_features) == (2, 96)
    assert fused.bev.shape == (2, network.bev_channels, 6, 6)


def test_without_a_route_there_is_no_route_fusion() -> None:
    with pytest.raises(ValueError, match="take another fusion"):
        RouteFusion(SOURCES, {"ego": (1, 5)}, {"camera": CAMERA}, 8, (4, 8), GRID, SCALE_M, 32, 2, 4, 3)
