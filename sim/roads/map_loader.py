"""Maps by name: towns that ship with the package, towns that are generated, files that are imported.

Knows every part of a map; knows nothing about traffic or sensors.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path

from sim.roads.driving_map import DrivingMap
from sim.roads.ground import load_ground
from sim.roads.importer import import_map, map_suffix
from sim.roads.scenery import build_scenery, signal_heads
from sim.roads.sumo_reader import MapError, read_network
from sim.roads.towns import TOWN_KINDS, generate_town

MAX_NETWORK_BYTES = 200_000_000


def town_names() -> tuple[str, ...]:
    """The kinds of town that can be driven by name; `kind:seed` chooses another seed than 0."""
    return TOWN_KINDS


@lru_cache(maxsize=8)
def load_map(name: str, *, seed: int = 0) -> DrivingMap:
    """The map of that name, kept for the life of the process.

    name: a town kind, a kind with a town seed (`grid-small:17`), or the path of a .xodr, .osm or .net.xml file.
    seed: of the scenery.

    Raises:
        MapError: no such town or file, or the file cannot be used.
    """
    kind, _, number = name.partition(":")
    if kind in TOWN_KINDS:
        if number and not number.isdecimal():
            raise MapError(f"town seeds are whole numbers, got {number!r}; write for example {kind}:17")
        return map_from_network(name, town_network(kind, int(number or 0)), seed=seed)
    path = Path(name)
    if map_suffix(path) is not None or path.exists():
        return map_from_network(name, import_map(path)[0], seed=seed)
    close = difflib.get_close_matches(kind, TOWN_KINDS, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    raise MapError(
        f'no map named "{name}". Known: {", ".join(TOWN_KINDS)}; or a path to a .xodr, .osm or .net.xml file.{hint}'
    )


def town_network(kind: str, seed: int) -> bytes:
    """The SUMO network of a town; seed 0 comes with the package, so that it converts nothing."""
    shipped = resources.files("sim.roads") / "data" / f"{kind}-{seed}.net.xml.gz"
    if shipped.is_file():
        return gzip.decompress(shipped.read_bytes())
    return generate_town(kind, seed)


def map_from_network(name: str, net_xml: bytes, *, seed: int = 0) -> DrivingMap:
    """The map of a SUMO network given as bytes.

    Raises:
        MapError: the bytes are no network that a car can drive in.
    """
    if len(net_xml) > MAX_NETWORK_BYTES:
        raise MapError(f"{name}: a network of {len(net_xml)} bytes, but at most {MAX_NETWORK_BYTES} are read")
    network = read_network(net_xml)
    digest = hashlib.sha256(net_xml).hexdigest()
    try:
        ground = load_ground(network, digest)
    except ValueError as error:
        raise MapError(f"{name}: {error}") from None
    return DrivingMap(
        name=name,
        network=network,
        ground=ground,
        scenery=build_scenery(network, ground, seed),
        signal_heads=signal_heads(network),
        net_xml=net_xml,
        digest=digest,
    )
