"""Everything that is fixed about a place: roads, ground, scenery, signal heads.

Knows nothing about traffic or sensors.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from sim.playback.argoverse2 import is_argoverse2, read_argoverse2
from sim.playback.recorded_scene import RecordedScene, RecordingError
from sim.playback.scene_bytes import scene_as_bytes
from sim.playback.scene_ground import scene_ground
from sim.playback.scene_roads import scene_network
from sim.playback.scene_route import scene_route
from sim.playback.scene_scenery import scene_scenery
from sim.playback.waymo_motion import read_waymo_motion
from sim.roads.ground import GroundClass, GroundRaster, load_ground
from sim.roads.importer import SUFFIXES, convert_map
from sim.roads.left_hand import mirrored_boxes, mirrored_ground, mirrored_heads, mirrored_network
from sim.roads.map_xml import MapError
from sim.roads.network import RoadNetwork
from sim.roads.scenery import build_scenery
from sim.roads.signal_heads import SignalHeads, signal_heads
from sim.roads.sumo_reader import read_network
from sim.roads.towns import TOWN_KINDS, generate_town
from sim.solids import Boxes

__all__ = [
    "DrivingMap", "GroundClass", "GroundRaster", "MapError", "SignalHeads", "load_map", "map_from_network",
    "town_names",
]  # fmt: skip

MAPS_KEPT = 4
RECORDING_SUFFIX = ".json"


@dataclass(frozen=True, eq=False)
class DrivingMap:
    """name: as the user gave it. net_xml: the SUMO network's bytes (attached to logs). digest: SHA-256 hex of net_xml.

    scenery: static solids (buildings, trees, poles, parked cars), never on a driving lane.
    recording: the scene that is played, or None; then net_xml is empty, and the digest is that of `scene_as_bytes`.
    """

    name: str
    network: RoadNetwork
    ground: GroundRaster
    scenery: Boxes
    signal_heads: SignalHeads
    net_xml: bytes
    digest: str
    recording: RecordedScene | None = None


def town_names() -> tuple[str, ...]:
    """The kinds of towns that `load_map` knows by name."""
    return TOWN_KINDS


def load_map(name: str, *, seed: int = 0) -> DrivingMap:
    """A map: a kind of town by name, such as "grid-small", one of its towns, "grid-small:17", or the path of a map or recording.

    seed: what stands beside the roads. The last few maps stay in memory; their arrays are shared, so do not write into
    them. Towns that do not ship with the package are generated, files other than .net.xml are converted.

    Raises MapError with what is known and what was probably meant, RecordingError for a recording that cannot be played.
    """
    if _is_file_name(name):
        path = Path(name)
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        return _loaded(str(path.resolve()), name, stamp, seed)
    kind, colon, number = name.partition(":")
    if kind not in TOWN_KINDS or (colon and not number.isdecimal()):
        raise MapError(_unknown(name))
    return _loaded(f"{kind}:{int(number or 0)}", name, None, seed)


def map_from_network(name: str, net_xml: bytes, *, seed: int = 0) -> DrivingMap:
    """The map of a SUMO network given as bytes, such as a log has attached.

    Raises MapError where the bytes are no such network, or one of more ground than is drawn.
    """
    network = read_network(net_xml, title=name)
    digest = hashlib.sha256(net_xml).hexdigest()
    # Ground, heads and scenery are made for right-hand traffic; for the other kind they are made in a mirror.
    right_hand = mirrored_network(network) if network.left_hand else network
    try:
        ground = load_ground(right_hand, digest)
    except MapError as error:
        raise MapError(f"{name}: {error}") from None
    heads, masts = signal_heads(right_hand, ground)
    scenery = build_scenery(right_hand, ground, seed, masts)
    if network.left_hand:
        ground, heads, scenery = mirrored_ground(ground), mirrored_heads(heads), mirrored_boxes(scenery)
    return DrivingMap(
        name=name,
        network=network,
        ground=ground,
        scenery=scenery,
        signal_heads=heads,
        net_xml=net_xml,
        digest=digest,
    )


def map_from_scene(name: str, scene: RecordedScene) -> DrivingMap:
    """The map of a recorded scene, such as a log has attached.

    Raises RecordingError where it is too large to draw.
    """
    route = scene_route(scene)
    network = scene_network(scene, route)
    try:
        ground = scene_ground(scene, route)
    except ValueError as error:
        raise RecordingError(f"{name}: {error}") from None
    heads, _ = signal_heads(network, ground)
    return DrivingMap(
        name=name,
        network=network,
        ground=ground,
        scenery=scene_scenery(scene, ground),
        signal_heads=heads,
        net_xml=b"",
        digest=hashlib.sha256(scene_as_bytes(scene)).hexdigest(),
        recording=scene,
    )


@lru_cache(maxsize=MAPS_KEPT)
def _loaded(source: str, name: str, stamp: int | None, seed: int) -> DrivingMap:
    """stamp: when the file was last changed, so that a changed one is read again; None for a town."""
    if stamp is not None and Path(source).is_dir():
        return map_from_scene(name, read_argoverse2(Path(source)))
    if stamp is not None and source.endswith(RECORDING_SUFFIX):
        return map_from_scene(name, read_waymo_motion(Path(source)))
    if stamp is not None:
        return map_from_network(name, convert_map(source), seed=seed)
    kind, _, number = source.partition(":")
    shipped = files("sim.roads").joinpath("data", f"{kind}-{number}.net.xml.gz")
    net_xml = gzip.decompress(shipped.read_bytes()) if shipped.is_file() else generate_town(kind, int(number))
    return map_from_network(name, net_xml, seed=seed)


def _is_file_name(name: str) -> bool:
    return (
        name.endswith((*SUFFIXES, RECORDING_SUFFIX))
        or Path(name).is_file()
        or is_argoverse2(Path(name))
        or "/" in name
        or "\\" in name
    )


def _unknown(name: str) -> str:
    kind = name.partition(":")[0]
    if kind in TOWN_KINDS:
        return f"no town {name!r}: after the colon stands a seed, a whole number such as {kind}:17"
    known = {kind: kind for kind in TOWN_KINDS}
    known |= {path.name.split(".")[0]: str(path) for suffix in SUFFIXES for path in sorted(Path().glob(f"*{suffix}"))}
    near = [known[close] for close in difflib.get_close_matches(kind.split(".")[0], known, n=1, cutoff=0.5)]
    guess = f" Did you mean {near[0]!r}?" if near else ""
    formats = " or ".join([", ".join(SUFFIXES[:-1]), SUFFIXES[-1]])
    recordings = f"a recording: a Waymo Motion {RECORDING_SUFFIX} file or the folder of an Argoverse 2 log"
    return f"no map named {name!r}. Known: {', '.join(TOWN_KINDS)}; or a path to a {formats} file, or to {recordings}.{guess}"
