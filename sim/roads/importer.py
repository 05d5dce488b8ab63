"""Turns the map files of others (OpenDRIVE, OpenStreetMap, SUMO) into a SUMO network and says what was kept.

Knows file formats and netconvert; knows nothing about ground, scenery or traffic.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import numpy as np
from defusedxml.ElementTree import fromstring

from sim.roads.netconvert import Conversion, NetconvertError, netconvert
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.sumo_reader import MAX_FILE_BYTES, MapError, read_network

SUFFIXES = (".xodr", ".osm", ".net.xml")
ROOT_TAGS = {".xodr": "OpenDRIVE", ".osm": "osm", ".net.xml": "net"}

SIGNAL_OPTIONS = (
    "--tls.default-type", "static", "--tls.green.time", "18", "--tls.yellow.time", "4", "--tls.allred.time", "2",
    "--tls.left-green.time", "0", "--tls.join-dist", "25", "--tls.ignore-internal-junction-jam",
)  # fmt: skip
COMMON_OPTIONS = (
    "--no-turnarounds", "--junctions.corner-detail", "8", "--junctions.internal-link-detail", "12", "--precision", "3",
    "--geometry.max-angle", "180", "--tls.discard-simple",
)  # fmt: skip
OPENDRIVE_OPTIONS = ("--opendrive.curve-resolution", "1", "--opendrive.internal-shapes")
# Sidewalks on all roads up to 108 km/h; crossings at signals and across streets of 30 km/h.
SIDEWALK_OPTIONS = (
    "--sidewalks.guess", "--sidewalks.guess.min-speed", "0", "--sidewalks.guess.max-speed", "30", "--crossings.guess",
    "--crossings.guess.speed-threshold", "8.5", "--walkingareas", "--default.sidewalk-width", "2.5",
    "--default.crossing-width", "3.5",
)  # fmt: skip
OSM_OPTIONS = (
    "--keep-edges.by-vclass", "passenger", "--proj.utm", "--geometry.remove", "--roundabouts.guess", "--junctions.join",
    "--tls.guess-signals", "--tls.join", "--ramps.guess", "--osm.lane-access", "--default.junctions.radius", "6",
    "--sidewalks.guess", "--crossings.guess", "--walkingareas", "--default.sidewalk-width", "2.5",
)  # fmt: skip


@dataclass(frozen=True)
class ImportReport:
    """What an import kept and dropped.

    lanes, junction_lanes, sidewalks, crossings, signals: how many there are. lane_km: length of the lanes for cars.
    dropped: kind of thing in the source to how many of them were left out. dead_ends: lanes at which the map ends.
    warnings: netconvert's, each kind once with its number. notes: sentences for people.
    """

    source: str
    lanes: int
    junction_lanes: int
    lane_km: float
    sidewalks: int
    crossings: int
    signals: int
    dropped: dict[str, int]
    dead_ends: tuple[str, ...]
    warnings: dict[str, int]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def import_map(path: str | Path) -> tuple[bytes, ImportReport]:
    """The SUMO network made of a .xodr, .osm or .net.xml file, and a report.

    A .net.xml file comes back as it is. Elevation is dropped by whoever reads the network: the world is flat.

    Raises MapError for a file that is missing, empty, too large, of another kind, not well formed or without roads.
    """
    source = Path(path)
    suffix = next((known for known in SUFFIXES if source.name.endswith(known)), None)
    if suffix is None:
        raise MapError(f"{source}: a map file ends with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    data, root = _checked(source, suffix)
    notes: list[str] = []
    if suffix == ".net.xml":
        conversion = Conversion(data, ())
    else:
        conversion = _converted(source, data, root, suffix, notes)
    network = read_network(conversion.net_xml, title=str(source))
    return conversion.net_xml, _report(source, network, conversion, root, notes)


def _checked(source: Path, suffix: str) -> tuple[bytes, Element]:
    """The bytes of a file and its root element, or MapError: existence and size before memory, entities refused."""
    if not source.is_file():
        raise MapError(f"{source}: no such file; give the path of a map file")
    size = source.stat().st_size
    if size == 0:
        raise MapError(f"{source}: an empty file; export or download the map again")
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 1_000_000
        raise MapError(f"{source}: {size // 1_000_000} MB, and at most {limit} MB are read; cut out a smaller region")
    data = source.read_bytes()
    expected = ROOT_TAGS[suffix]
    try:
        root: Element = fromstring(data)
    except ParseError as error:
        raise MapError(f"{source}: not well-formed XML: {error}; repair that place or export the map again") from error
    except defusedxml.DefusedXmlException as error:
        raise MapError(f"{source}: declares XML entities, which are refused; remove the <!DOCTYPE ...> part") from error
    except (ValueError, LookupError) as error:
        raise MapError(f"{source}: no readable XML text: {error}; export the map again") from error
    if root.tag.rpartition("}")[2] != expected:
        raise MapError(f"{source}: begins with <{root.tag}>, but a {suffix} file begins with <{expected}>; rename it")
    return data, root


def _converted(source: Path, data: bytes, root: Element, suffix: str, notes: list[str]) -> Conversion:
    options: tuple[str, ...]
    guess: tuple[str, ...]
    if suffix == ".osm":
        reader, options = "osm-files", OSM_OPTIONS
        has_signals = any(tag.get("v") == "traffic_signals" for tag in root.iter("tag"))
        if root.find("way") is None:
            raise MapError(f"{source}: holds no way; download a region with streets")
    else:
        reader, options = "opendrive-files", OPENDRIVE_OPTIONS
        has_signals = any(signal.get("dynamic") == "yes" for signal in root.iter("signal"))
        if root.find("road") is None:
            raise MapError(f"{source}: holds no road; export the map again")
        if any(lane.get("type") == "sidewalk" for lane in root.iter("lane")):
            options += SIDEWALK_OPTIONS
            notes.append("the source has sidewalks: every road got one of 2.5 m, and crossings at its signals")
        if any(road.get("rule") == "LHT" for road in root.iter("road")):
            notes.append("the source drives on the left; it is read as if it drove on the right")
    guess = () if has_signals else ("--tls.guess", "--tls.guess.threshold", "80")
    try:
        conversion = netconvert({reader: data}, [*COMMON_OPTIONS, *SIGNAL_OPTIONS, *options, *guess])
        if has_signals and b"<tlLogic" not in conversion.net_xml:
            notes.append(
                "the signals of the source control no junction here; signals were guessed from speeds and sizes"
            )
            guess = ("--tls.guess",)
            conversion = netconvert({reader: data}, [*COMMON_OPTIONS, *SIGNAL_OPTIONS, *options, *guess])
    except NetconvertError as error:
        raise MapError(f"{source}: netconvert cannot use it: {error}; check it in its editor") from error
    return conversion


def _report(
    source: Path, network: RoadNetwork, conversion: Conversion, root: Element, notes: list[str]
) -> ImportReport:
    driving = network.lane_kind == LaneKind.DRIVING
    outside = network.lane_junction < 0
    open_end = driving & outside & (np.diff(network.successor_start) == 0)
    kinds = network.lane_kind
    return ImportReport(
        source=str(source),
        lanes=int((driving & outside).sum()),
        junction_lanes=int((driving & ~outside).sum()),
        lane_km=round(float(network.lane_length_m[driving & outside].sum()) / 1000.0, 3),
        sidewalks=int((kinds == LaneKind.SIDEWALK).sum()),
        crossings=int((kinds == LaneKind.CROSSING).sum()),
        signals=len(network.signal_start) - 1,
        dropped=_dropped(root),
        dead_ends=tuple(network.lane_name[k] for k in np.flatnonzero(open_end)),
        warnings=_counted(conversion.warnings),
        notes=(*notes, *_elevation_note(root)),
    )


def _elevation_note(root: Element) -> tuple[str, ...]:
    heights = [float(part.get(key, 0.0)) for part in root.iter("elevation") for key in ("a", "b", "c", "d")]
    return ("the source has elevation, which is dropped: the world is flat",) if any(map(abs, heights)) else ()


def _dropped(root: Element) -> dict[str, int]:
    """Kinds of OpenDRIVE lanes and OpenStreetMap ways that carry no cars, with their numbers."""
    kinds: Counter[str] = Counter()
    kept = {"sidewalk", "driving", "none", "bidirectional", "onRamp", "offRamp", "entry", "exit", "connectingRamp"}
    for lane in root.iter("lane"):
        kind = lane.get("type")
        if root.tag == "OpenDRIVE" and kind is not None and kind not in kept:
            kinds[f"lane {kind}"] += 1
    for way in root.iter("way"):
        tags = {tag.get("k"): tag.get("v") for tag in way.iter("tag")}
        for key in ("railway", "building", "waterway"):
            if key in tags:
                kinds[key] += 1
        if tags.get("highway") in {"footway", "path", "steps", "cycleway", "pedestrian", "track"}:
            kinds[f"highway {tags['highway']}"] += 1
    return dict(kinds.most_common())


def _counted(warnings: tuple[str, ...]) -> dict[str, int]:
    """Warnings that differ only in what they quote, counted together under the first one's words."""
    first: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for warning in warnings:
        key = "'".join(part if k % 2 == 0 else "" for k, part in enumerate(warning.split("'")))
        numbers[first.setdefault(key, warning)] += 1
    return dict(numbers.most_common())
