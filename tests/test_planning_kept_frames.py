"""Kept frames: what is written comes back, in any order; what is damaged or foreign is refused; learning needs no encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_planning_network import network, observation

from perception.features import SensorTokens
from perception.heads import OUTLOOK_SIZE, outlook_parts
from perception.labels import Affordance
from planning.imitation import expert_distribution
from planning.kept_frames import (
    FrameStore,
    KeptFrames,
    KeptFramesError,
    encoders_digest,
    require_encoders,
    write_shard,
)
from planning.network import DrivingNetwork
from planning.train_kept import DrawWeights, draw, draw_weights, kept_scores


def frames(n: int, seed: int, channels: int = 3) -> KeptFrames:
    """Frames whose tokens have no more than 11 bits, so that they come back as they were."""
    rng = np.random.default_rng(seed)
    values = {
        "camera_wide": torch.from_numpy(rng.integers(-1000, 1000, (n, 5, channels)).astype(np.float32)),
        "ego": torch.from_numpy(rng.integers(-9, 9, (n, 1, 5)).astype(np.float32)),
    }
    present = {"camera_wide": torch.from_numpy(rng.random(n) < 0.5)}
    expert = expert_distribution(rng.uniform(-1, 1, (n, 2)).astype(np.float32), 40.0)
    light, lane = rng.integers(-1, 4, n), rng.standard_normal((n, 2)).astype(np.float32)
    lane[::3] = np.nan
    affordances = rng.random((n, len(Affordance))).astype(np.float32)
    labels = [torch.from_numpy(array) for array in (expert, light, lane, affordances)]
    return KeptFrames(SensorTokens(values, present), *labels)


def store_of(folder: Path) -> FrameStore:
    store = FrameStore()
    for shard in sorted(folder.iterdir()):
        store.add(shard)
    return store


def assert_equal(got: KeptFrames, parts: list[KeptFrames], numbers: list[int]) -> None:
    for name in ("expert", "light", "lane", "affordances"):
        whole = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(getattr(got, name), whole[numbers], equal_nan=True, rtol=0, atol=0)
    for kind in ("values", "present"):
        for name in getattr(parts[0].tokens, kind):
            whole = torch.cat([getattr(part.tokens, kind)[name] for part in parts])
            found = getattr(got.tokens, kind)[name]
            assert found.dtype == whole.dtype
            assert torch.equal(found, whole[numbers])


@pytest.mark.parametrize("channels", [3, 700])  # the latter fill pages, and are asked for one by one
def test_frames_come_back_in_any_order_from_any_shard(tmp_path: Path, channels: int) -> None:
    parts = [frames(n, seed, channels) for seed, n in enumerate((4, 1, 7, 3))]
    assert write_shard(tmp_path / "a", parts[:2]) == 5
    assert write_shard(tmp_path / "b", parts[2:]) == 10
    store = store_of(tmp_path)
    assert len(store) == 15
    for numbers in ([0, 14, 5, 4, 4, 9], [3], list(range(15)), [14, 13, 0, 0]):
        store.expect(np.array([7, 14]))
        assert_equal(store.frames(np.array(numbers)), parts, numbers)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def save_until_full(*args: object, **kwargs: object) -> None:
        saved.append(args)
        if len(saved) == 3:
            raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", save_until_full)
        with pytest.raises(KeptFramesError, match=r"a: cannot be written: no space left on device; make room"):
            write_shard(tmp_path / "a", [frames(3, 0)])
    assert not list(tmp_path.iterdir())  # nor what takes room
    write_shard(tmp_path / "a", [frames(3, 0)])
    assert len(store_of(tmp_path)) == 3


def test_a_shard_says_whose_tokens_it_holds(tmp_path: Path) -> None:
    built, same, other = network(), network(), network()
    with torch.no_grad():
        same.policy[0].weight.add_(1.0)
        same.fusion.queries.add_(1.0)
        other.points.point.weight.add_(0.1)
    exported = network()
    exported.load_state_dict({name: tensor.half().float() for name, tensor in built.state_dict().items()})
    write_shard(tmp_path / "a", [frames(3, 0)], encoders_digest(built))
    for mine in (built, same, exported):
        require_encoders(tmp_path / "a", encoders_digest(mine))
    with pytest.raises(KeptFramesError, match="a: frames as other encoders see them than those of this network"):
        require_encoders(tmp_path / "a", encoders_digest(other))
    write_shard(tmp_path / "old", [frames(3, 0)])
    require_encoders(tmp_path / "old", encoders_digest(other))
    assert len(store_of(tmp_path)) == 6


def test_a_shard_without_frames_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeptFramesError, match="nothing was kept"):
        write_shard(tmp_path / "a", [])
    assert not (tmp_path / "a").exists()


def test_a_damaged_or_foreign_shard_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("good", "cut", "pickled", "shorter", "missing"):
        write_shard(tmp_path / name, [frames(4, 0)])
    write_shard(tmp_path / "wider", [frames(4, 0, channels=4)])
    tokens = "tokens-camera_wide.npy"
    (tmp_path / "cut" / tokens).write_bytes((tmp_path / "good" / tokens).read_bytes()[:150])
    np.save(tmp_path / "pickled" / "light.npy", np.array([{}] * 4, object), allow_pickle=True)
    np.save(tmp_path / "shorter" / "light.npy", np.zeros(3, np.int64))
    (tmp_path / "missing" / "expert.npy").unlink()
    (tmp_path / "empty").mkdir()
    store = FrameStore()
    store.add(tmp_path / "good")
    for name in ("cut", "pickled", "shorter", "missing", "wider", "empty"):
        with pytest.raises(KeptFramesError, match=f"{name}: .*delete") as raised:
            store.add(tmp_path / name)
        assert "\n" not in str(raised.value)
    assert len(store) == 4


@pytest.mark.parametrize("fusion", ["attention", "route"])
@pytest.mark.parametrize("outlook", [False, True])
def test_kept_tokens_are_driven_by_as_observations_are(fusion: str, outlook: bool) -> None:
    built = network(fusion=fusion, outlook=outlook)
    assert isinstance(built, DrivingNetwork)
    given = observation(4)
    given["camera_wide"][1] = 0
    given["point_count"][2] = 0
    with torch.inference_mode():
        driven, said = built.act_on(built.tokens(given))
        torch.testing.assert_close(driven.mode(), built.act(given).mode())
        assert (said is not None) == outlook
        if said is not None:
            torch.testing.assert_close(said, built.perceive(given)[1].outlook)


@pytest.mark.parametrize("fusion", ["attention", "route"])
def test_a_sensor_that_is_silenced_later_counts_as_one_that_was_silent(fusion: str) -> None:
    built, given = network(fusion=fusion), observation(3)
    assert isinstance(built, DrivingNetwork)
    with torch.inference_mode():
        tokens = built.tokens(given)
        nobody = torch.zeros(3, dtype=torch.bool)
        dark = {name: torch.zeros_like(given[name]) for name in built.spec.cameras}
        for names, silent in (
            (("points",), {"point_count": torch.zeros_like(given["point_count"])}),
            (tuple(dark), dark),
        ):
            later, _ = built.act_on(replace(tokens, present={**tokens.present, **dict.fromkeys(names, nobody)}))
            torch.testing.assert_close(later.mode(), built.act({**given, **silent}).mode())
            assert not torch.allclose(later.mode(), built.act(given).mode(), atol=1e-4)


def test_fusions_without_tokens_say_so() -> None:
    built = network(fusion="lift")
    assert isinstance(built, DrivingNetwork)
    with pytest.raises(ValueError, match=r"'lift' has no tokens; take attention or route"):
        built.tokens(observation(1))


def test_scores_tell_who_drives_like_the_expert_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that says and does what the frames say has no errors; one that says half of it misses nothing, less misses all."""
    part = frames(40, 3)
    part.affordances[:20, Affordance.WALKER] = 0.0
    write_shard(tmp_path / "a", [part])
    store = store_of(tmp_path)
    built = network(fusion="attention", outlook=True)
    assert isinstance(built, DrivingNetwork)

    def knows(share: float) -> dict[str, float]:
        class Driven:
            def __init__(self, expert: torch.Tensor) -> None:
                self.expert = expert

            def mode(self) -> torch.Tensor:
                return 2 * (self.expert[..., 0] - 1) / (self.expert.sum(-1) - 2) - 1

        given = iter([store.frames(np.arange(0, 25)), store.frames(np.arange(25, 40))])

        def act_on(tokens: SensorTokens) -> tuple[Driven, torch.Tensor]:
            said = next(given)
            outlook = torch.zeros(len(said), OUTLOOK_SIZE)
            outlook_parts(outlook)[2].copy_(share * said.affordances)
            return Driven(said.expert), outlook

        monkeypatch.setattr(built, "act_on", act_on)
        return kept_scores(built, store, batch=25)

    whole, little = knows(1.0), knows(0.4)
    assert whole["throttle_error"] < 1e-5
    assert whole["throttle_correlation"] == pytest.approx(1.0)
    assert whole["missed_walker"] == whole["missed_stop_sign"] == 0.0
    assert little["missed_walker"] == little["missed_stop_sign"] == 1.0


def test_frames_that_drives_fail_by_are_drawn_more_often() -> None:
    affordances = np.zeros((100, len(Affordance)), np.float32)
    affordances[:10, Affordance.STOP_SIGN] = 0.9  # 1.3 m
    affordances[:5, Affordance.WALKER] = 0.9
    affordances[10:50, Affordance.STOP_SIGN] = 0.7  # 5 m
    affordances[50:60, Affordance.SIGNAL] = 0.95
    affordances[60:65, Affordance.WALKER] = 0.5
    affordances[65:70, Affordance.BLOCKED] = 0.3
    affordances[70:75, Affordance.SWING] = -0.5
    weights = draw_weights(affordances, DrawWeights(stop_line=4.0, walker=2.0, detour=3.0))
    assert weights.tolist() == [4.0] * 10 + [1.0] * 50 + [2.0] * 5 + [3.0] * 10 + [1.0] * 25
    drawn = np.bincount(draw(np.random.default_rng(0), np.cumsum(weights), 31_000), minlength=100)
    assert len(drawn) == 100
    expected = 31_000 * weights / weights.sum()
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected))
