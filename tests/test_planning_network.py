"""The driving networks: what they look at, what they do not, and that the batch does not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from perception.heads import OUTLOOK_SIZE, HeadsConfig
from perception.preprocess import ObservationSpec
from perception.sensors import CameraCalibration, EgoField
from planning.network import (
    LATENT,
    SLOW_MPS,
    ActorCritic,
    DrivingNetwork,
    NetworkConfig,
    RunningStatistics,
    build_network,
    network_config,
)
from planning.perceiver import Perceiver

CAMERA = CameraCalibration(
    48, 32, np.array([[24.0, 0, 23.5], [0, 24.0, 15.5], [0, 0, 1]]),
    np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]),
)  # fmt: skip
SPEC = ObservationSpec({"camera_wide": CAMERA, "camera_tele": CAMERA}, max_points=200, privileged_size=6)


FUSIONS = ("attention", "route", "lift", "late")


def observation(n: int, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    values = {
        key: (rng.integers(0, 256, (n, *shape)) if dtype == "uint8" else rng.uniform(-4, 4, (n, *shape))).astype(dtype)
        for key, (shape, dtype) in SPEC.shapes().items()
    }
    values["point_count"][:] = 200
    return {key: torch.from_numpy(v) for key, v in values.items()}


def network(**overrides: object) -> ActorCritic:
    torch.manual_seed(0)
    built = build_network(network_config("smoke", precision="float32", **overrides), SPEC)
    with torch.no_grad():
        built.policy[-1].weight.mul_(100)  # type: ignore[union-attr, operator]  # a policy that has made up its mind
    return built


def actions(built: ActorCritic, given: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return built.act(given).mode()


@pytest.mark.parametrize("size", ["smoke", "small", "full"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_size_gives_distributions_and_values(size: str, fusion: str) -> None:
    torch.manual_seed(0)
    built = build_network(NetworkConfig.model_validate({"size": size, "fusion": fusion}), SPEC)
    with torch.inference_mode():
        distribution, value = built(observation(2))
    assert distribution.alpha.shape == distribution.beta.shape == (2, 2)
    assert distribution.alpha.min() > 1
    assert value.shape == (2,)
    assert value.dtype == distribution.alpha.dtype == torch.float32
    # At first it hardly prefers any action (policy gain 0.01).
    assert distribution.mode().abs().max() < 0.1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_sample_is_the_same_alone_and_in_a_batch(fusion: str) -> None:
    built, given = network(fusion=fusion), observation(5)
    together = actions(built, given)
    alone = torch.cat([actions(built, {k: v[i : i + 1] for k, v in given.items()}) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.std(0).min() > 1e-4


@pytest.mark.parametrize("key", ["camera_wide", "camera_tele", "points", "ego", "route"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_sensor_changes_the_action_and_the_privileged_part_does_not(key: str, fusion: str) -> None:
    built, given, other = network(fusion=fusion), observation(2), observation(2, seed=1)
    before = actions(built, given)
    assert (actions(built, {**given, key: other[key]}) - before).abs().max() > 1e-4
    assert torch.equal(actions(built, {**given, "privileged": other["privileged"]}), before)


def test_the_critic_sees_the_privileged_part_only_when_asked_to() -> None:
    given, other = observation(2), observation(2, seed=1)
    for critic_privileged in (True, False):
        built = network(critic_privileged=critic_privileged)
        with torch.inference_mode():
            before = built(given)[1]
            after = built({**given, "privileged": other["privileged"]})[1]
        assert bool((before != after).all()) == critic_privileged


@pytest.mark.parametrize("key", ["camera_wide", "points", "route"])
def test_a_silent_sensor_is_masked_out_for_that_car_only(key: str) -> None:
    built, given = network(), observation(2)
    silent = {k: v.clone() for k, v in given.items()}
    silent[key][0] = 0
    if key == "points":
        silent["point_count"][0] = 0
    with torch.no_grad():
        before = actions(built, silent)
        position = built.fusion.position[key]  # type: ignore[union-attr, index]
        # Not shifted evenly: the layer norm would take that out again
        position.add_(torch.linspace(-1, 1, position.shape[1]))
        after = actions(built, silent)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize("key", ["camera_wide", "points"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_a_silent_sensor_has_for_features_changes_nothing(key: str, fusion: str) -> None:
    built, given = network(fusion=fusion), observation(2)
    assert isinstance(built, DrivingNetwork)
    given[key][0] = 0
    if key == "points":
        given["point_count"][0] = 0
    with torch.no_grad():
        features = built.features(given)
        before = built.fusion.latent(features)
        if key == "points":
            other = replace(features, points=tuple(p + 1 for p in features.points))
        else:
            other = replace(features, pictures={**features.pictures, key: features.pictures[key] + 1})
        after = built.fusion.latent(other)
    assert (after[1] - before[1]).abs().max() > 1e-4
    if (key, fusion) != ("points", "lift"):  # there an empty sweep is an empty map, like any empty place
        torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bfloat16_is_near_float32(fusion: str) -> None:
    built, given = network(fusion=fusion), observation(2)
    assert isinstance(built, DrivingNetwork)
    with torch.inference_mode():
        exact = built.latent(given)
        built.config = built.config.model_copy(update={"precision": "bfloat16"})
        rough = built.latent(given)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_heads_get_the_latent_of_the_policy_and_a_map(fusion: str) -> None:
    built, given = network(fusion=fusion), observation(2)
    assert isinstance(built, DrivingNetwork)
    with torch.no_grad():
        features, fused = built.perceive(given)
        torch.testing.assert_close(fused.latent, built.latent(given), rtol=1e-4, atol=1e-5)
    assert fused.latent.shape == (2, built.fusion.out_features)
    sides = {"attention": 6, "route": 6, "lift": 12, "late": 1}
    assert fused.bev.shape == (2, built.fusion.bev_channels, sides[fusion], sides[fusion])
    assert [p.shape[2] for p in features.points] == [24, 12, 6]


def test_with_an_outlook_the_policy_and_the_heads_see_what_the_network_says_of_the_road() -> None:
    built, given = network(fusion="route", outlook=True), observation(2)
    assert isinstance(built, DrivingNetwork)
    with torch.no_grad():
        features, fused = built.perceive(given)
        seen = built.latent(given)
    size = built.fusion.out_features
    assert seen.shape == (2, built.latent_size) == (2, size + OUTLOOK_SIZE + 5 + len(SLOW_MPS))
    assert fused.outlook is not None
    torch.testing.assert_close(fused.latent, seen, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[:, size : size + OUTLOOK_SIZE], built.outlook(seen[:, :size]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[:, size + OUTLOOK_SIZE :], features.vectors["ego"][:, 0])
    assert built.cached_shapes()[LATENT][0] == (built.latent_size,)
    built.freeze_features()
    assert not any(p.requires_grad for p in built.outlook.parameters())
    heads = Perceiver(built, HeadsConfig()).heads
    assert not any(name.startswith("state.") for name in heads.state_dict())
    said = heads(features, fused)
    assert torch.equal(torch.cat([said.light, said.lane, said.affordances], dim=1), fused.outlook)


def test_the_policy_tells_a_car_that_stands_from_one_that_rolls() -> None:
    built = network(fusion="route", outlook=True)
    assert isinstance(built, DrivingNetwork)
    given = observation(4)
    given["ego"][:, EgoField.SPEED_MPS] = torch.tensor([0.0, 0.1, 0.5, 12.0])
    with torch.no_grad():
        seen = built.features(given).vectors["ego"][:, 0]
    torch.testing.assert_close(seen[:, 5:], torch.tensor([[0.0, 0.0], [0.1, 0.5], [0.5, 1.0], [1.0, 1.0]]))
    torch.testing.assert_close(seen[:, 0] * 15.0, given["ego"][:, EgoField.SPEED_MPS])


def test_the_privileged_network_learns_its_normalisation_and_looks_at_nothing_else() -> None:
    built = network(kind="privileged")
    rng = torch.Generator().manual_seed(0)
    data = torch.randn((1000, 6), generator=rng) * torch.tensor([1, 10, 100, 0.1, 1, 1]) + 5
    for part in data.split([10, 400, 590]):
        built.update_statistics({"privileged": part})
    assert isinstance(built.statistics, RunningStatistics)
    torch.testing.assert_close(built.statistics.mean, data.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(built.statistics.variance, data.var(0, unbiased=False), rtol=1e-3, atol=1e-4)
    normalised = built.statistics(data)
    assert normalised.mean(0).abs().max() < 0.01
    assert (normalised.std(0) - 1).abs().max() < 0.05
    assert actions(built, {"privileged": data[:3]}).shape == (3, 2)
    spec = ObservationSpec({}, 0)
    with pytest.raises(ValueError, match="needs the observation `privileged`"):
        build_network(built.config, spec)
    with pytest.raises(ValueError, match="at least one camera, points, ego or route"):
        build_network(network_config("smoke"), ObservationSpec({}, 0, ego_size=0, route_points=0, privileged_size=3))


def test_size_sets_the_widths_and_each_can_be_overridden() -> None:
    smoke, full = network_config("smoke"), network_config("full")
    assert smoke.camera_width < network_config("small").camera_width < full.camera_width
    changed = network_config("smoke", hidden=64)
    assert changed.hidden == 64
    assert changed.model_copy(update={"hidden": smoke.hidden}) == smoke
    assert NetworkConfig.model_validate(changed.model_dump()) == changed
    for wrong in ({"size": "huge"}, {"heads": 3}, {"camera_imagenet": True}, {"token_widht": 64}, {"hidden": 2.5}):
        with pytest.raises(ValidationError):
            NetworkConfig.model_validate({"size": "smoke", **wrong})


def test_surroundings_are_added_to_a_network_that_drives() -> None:
    old, new = network(fusion="route", outlook=True), network(fusion="route", outlook=True, surroundings=True)
    assert isinstance(old, DrivingNetwork)
    assert isinstance(new, DrivingNetwork)
    assert new.adds_surroundings_to(old)
    assert not old.adds_surroundings_to(new)
    assert not new.adds_surroundings_to(network(fusion="route", outlook=True, layers=1))
    with torch.no_grad():
        old.outlook[-1].weight.mul_(100)
    given = observation(16)
    unlike = (actions(new, given) - actions(old, given)).abs().mean()
    new.take_over(old)
    for name, tensor in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor), name
    assert (actions(new, given) - actions(old, given)).abs().mean() < 0.2 * unlike
    with pytest.raises(ValueError, match="another shape"):
        old.take_over(new)


def test_only_route_fusion_looks_up_surroundings() -> None:
    with pytest.raises(ValidationError, match="'route' only, got 'lift'"):
        network_config("smoke", fusion="lift", surroundings=True)
