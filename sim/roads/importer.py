"""Turns the map files of others (OpenDRIVE, OpenStreetMap, SUMO) into a SUMO network and says what was kept.

Knows file formats and netconvert; knows nothing about ground, scenery or traffic.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

import numpy as np

from sim.roads.cache import read_cached, write_cached
from sim.roads.exact_lanes import NAMES_OPTION, TooManyLanes, bending_roads, with_exact_lanes
from sim.roads.left_hand import LEFT_HAND, mirror_net_xml, mirror_opendrive
from sim.roads.map_xml import MAX_FILE_BYTES, MapError, parse_map_xml
from sim.roads.netconvert import Conversion, NetconvertError, netconvert
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.opendrive_dialect import KINDS, rewrite_for_netconvert
from sim.roads.opendrive_roads import DRIVING_KINDS
from sim.roads.sumo_reader import DRAWN_PATHS, read_network

# Raise it with every change of what a conversion gives: it is part of the name of the cached file.
CONVERSION_VERSION = 4
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
    left_hand: whether everybody drives on the left.
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
    left_hand: bool

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def import_map(path: str | Path, *, left_hand: bool | None = None) -> tuple[bytes, ImportReport]:
    """The SUMO network made of a .xodr, .osm or .net.xml file, and a report.

    A .net.xml file comes back as it is. Elevation is dropped by whoever reads the network: the world is flat.
    left_hand: whether everybody drives on the left; None leaves that to the file. Conversions are kept in the user's cache
    folder under the digest of the file's content.

    Raises MapError for a file that is missing, empty, too large, of another kind, not well formed or without roads, and for a
    .net.xml file that is made for the other side.
    """
    source, suffix, data = _read(path)
    root = _parsed(source, suffix, data)
    if suffix == ".net.xml" and left_hand not in (None, root.get("lefthand") == "true"):
        made, option = ("right", "left") if left_hand else ("left", "right")
        raise MapError(
            f"{source}: made for driving on the {made}, and a SUMO network is taken as it is; leave out --{option}-hand, or"
            " import the file that it was made from"
        )
    conversion = _converted(source, suffix, data, left_hand)
    network = read_network(conversion.net_xml, title=str(source))
    return conversion.net_xml, _report(source, network, conversion, root)


def convert_map(path: str | Path) -> bytes:
    """`import_map` without its report; a file that has been converted before is not even parsed."""
    source, suffix, data = _read(path)
    return _converted(source, suffix, data, None).net_xml


def _read(path: str | Path) -> tuple[Path, str, bytes]:
    """A file, its kind and its bytes, or MapError: existence and size before memory is taken."""
    source = Path(path)
    if source.is_dir():
        raise MapError(f"{source}: a folder; give the path of a map file")
    suffix = next((known for known in SUFFIXES if source.name.endswith(known)), None)
    if suffix is None:
        raise MapError(f"{source}: a map file ends with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not source.is_file():
        raise MapError(f"{source}: no such file; give the path of a map file")
    size = source.stat().st_size
    if size == 0:
        raise MapError(f"{source}: an empty file; export or download the map again")
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 1_000_000
        raise MapError(f"{source}: {size // 1_000_000} MB, and at most {limit} MB are read; cut out a smaller region")
    return source, suffix, source.read_bytes()


def _parsed(source: Path, suffix: str, data: bytes) -> Element:
    """The root of the document, the names of its elements without the namespace of that root."""
    root = parse_map_xml(data, str(source), "repair that place or export the map again")
    expected = ROOT_TAGS[suffix]
    space, _, name = root.tag.rpartition("}")
    if name != expected:
        raise MapError(f"{source}: begins with <{root.tag}>, but a {suffix} file begins with <{expected}>; rename it")
    if space:
        for element in root.iter():
            element.tag = element.tag.removeprefix(f"{space}}}")
    return root


def _converted(source: Path, suffix: str, data: bytes, left_hand: bool | None) -> _Converted:
    """The conversion, from the cache where it is there."""
    if suffix == ".net.xml":
        return _Converted(data, (), ())
    key = hashlib.sha256(f"{CONVERSION_VERSION} {version('eclipse-sumo')} {suffix} {left_hand} ".encode() + data)
    name = f"import-{key.hexdigest()[:32]}.gz"
    kept = _Converted.from_bytes(read_cached(name))
    if kept is not None:
        return kept
    root = _parsed(source, suffix, data)
    try:
        if suffix == ".osm":
            conversion = _convert_osm(source, data, root, left_hand)
        else:
            conversion = _convert_opendrive(source, root, left_hand)
    except NetconvertError as error:
        raise MapError(f"{source}: netconvert cannot use it: {error}; check it in its editor") from error
    except TooManyLanes as error:
        raise MapError(f"{source}: {error}") from error
    write_cached(name, conversion.as_bytes())
    return conversion


def _convert_osm(source: Path, data: bytes, root: Element, left_hand: bool | None) -> _Converted:
    if root.find("way") is None:
        raise MapError(f"{source}: holds no way; download a region with streets")
    notes: list[str] = []
    sides = _driving_sides(root)
    if len(sides) > 1 and left_hand is None:
        said = ", ".join(f"{side} on {number} ways" for side, number in sides.most_common())
        notes.append(f"driving_side is {said}; the greater part holds for all, else give --left-hand or --right-hand")
    options: tuple[str, ...] = OSM_OPTIONS
    if sides["left"] > sides["right"] if left_hand is None else left_hand:
        options += ("--lefthand",)
        notes.append("everybody drives on the left")
    signals = any(tag.get("v") == "traffic_signals" for tag in root.iter("tag"))
    conversion = _with_signals("osm-files", data, options, signals, notes)
    return _Converted(conversion.net_xml, conversion.warnings, tuple(notes))


def _driving_sides(root: Element) -> Counter[str]:
    """How many streets say that one drives on the left, and on the right."""
    sides: Counter[str] = Counter()
    for way in root.iter("way"):
        tags = {tag.get("k"): tag.get("v") for tag in way.iter("tag")}
        if "highway" in tags and tags.get("driving_side") in ("left", "right"):
            sides[str(tags["driving_side"])] += 1
    return sides


def _convert_opendrive(source: Path, root: Element, left_hand: bool | None) -> _Converted:
    """The conversion of a document, which is rewritten. netconvert reads it for right-hand traffic only, so what is for the
    other kind is shown to it in a mirror, and the result is turned back."""
    if root.find("road") is None:
        raise MapError(f"{source}: holds no road; export the map again")
    notes = rewrite_for_netconvert(root, str(source))
    options: tuple[str, ...] = OPENDRIVE_OPTIONS
    if any(lane.get("type") == "sidewalk" for lane in root.iter("lane")):
        options += SIDEWALK_OPTIONS
        notes.append("the source has sidewalks: every road got one of 2.5 m, and crossings at its signals")
    rules = Counter(road.get("rule", "RHT") for road in root.iter("road"))
    if len(rules) > 1:
        notes.append(f"roads for traffic on both sides ({rules}): all are read as the greater part of them")
    mirrored = rules.most_common(1)[0][0] == LEFT_HAND if left_hand is None else left_hand
    if mirrored:
        try:
            mirror_opendrive(root)
        except (ValueError, KeyError) as error:
            raise MapError(f"{source}: a number that is missing or none ({error}); export the map again") from error
        notes.append("everybody drives on the left")
    roads, unknown = bending_roads(root)
    if unknown:
        reasons = ", ".join(reason[:80] for reason, _ in unknown.most_common(3))
        notes.append(f"roads kept as netconvert has them, which may be wrong: {unknown.total()} ({reasons})")
    if roads:
        options += (NAMES_OPTION,)
        notes.append(
            f"roads along which lanes change their width or place, put where the source has them: {len(roads)}"
        )
    signals = any(signal.get("dynamic") == "yes" for signal in root.iter("signal"))
    conversion = _with_signals("opendrive-files", tostring(root), options, signals, notes)
    net_xml = with_exact_lanes(conversion.net_xml, roads) if roads else conversion.net_xml
    net_xml = net_xml.replace(b"<net ", f'<net {DRAWN_PATHS}="true" '.encode(), 1)
    return _Converted(mirror_net_xml(net_xml) if mirrored else net_xml, conversion.warnings, tuple(notes))


def _with_signals(reader: str, data: bytes, options: tuple[str, ...], signals: bool, notes: list[str]) -> Conversion:
    """Converted with the signals of the source, and where they control nothing or it has none, with guessed ones."""
    options = (*COMMON_OPTIONS, *SIGNAL_OPTIONS, *options)
    conversion = netconvert(
        {reader: data}, options if signals else [*options, "--tls.guess", "--tls.guess.threshold", "80"]
    )
    if signals and b"<tlLogic" not in conversion.net_xml:
        notes.append("the signals of the source control no junction here; signals were guessed from speeds and sizes")
        conversion = netconvert({reader: data}, [*options, "--tls.guess"])
    return conversion


@dataclass(frozen=True)
class _Converted:
    """A network, netconvert's warnings and notes for people; as bytes: gzip of a line of JSON and the network."""

    net_xml: bytes
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def as_bytes(self) -> bytes:
        words = json.dumps([self.warnings, self.notes]).encode()
        return gzip.compress(words + b"\n" + self.net_xml, 6, mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes | None) -> _Converted | None:
        """None where there are none, or where they are damaged."""
        try:
            words, _, net_xml = gzip.decompress(data or b"").partition(b"\n")
            warnings, notes = json.loads(words)
            return cls(net_xml, tuple(warnings), tuple(notes))
        except (OSError, EOFError, ValueError, zlib.error, TypeError):
            return None


def lane_counts(network: RoadNetwork) -> dict[str, Any]:
    """How much of what a network has, under the names of `ImportReport`: its `lanes` are those for cars between junctions."""
    kinds = network.lane_kind
    driving, outside = kinds == LaneKind.DRIVING, network.lane_junction < 0
    return {
        "lanes": int((driving & outside).sum()),
        "junction_lanes": int((driving & ~outside).sum()),
        "lane_km": round(float(network.lane_length_m[driving & outside].sum()) / 1000.0, 3),
        "sidewalks": int((kinds == LaneKind.SIDEWALK).sum()),
        "crossings": int((kinds == LaneKind.CROSSING).sum()),
        "signals": len(network.signal_start) - 1,
    }


def _report(source: Path, network: RoadNetwork, conversion: _Converted, root: Element) -> ImportReport:
    between = (network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)
    open_end = between & (np.diff(network.successor_start) == 0)
    return ImportReport(
        source=str(source),
        **lane_counts(network),
        dropped=_dropped(root),
        dead_ends=tuple(network.lane_name[k] for k in np.flatnonzero(open_end)),
        warnings=_counted(conversion.warnings),
        notes=(*conversion.notes, *_elevation_note(root)),
        left_hand=network.left_hand,
    )


def _elevation_note(root: Element) -> tuple[str, ...]:
    """What is lost because the world is flat: heights of an OpenDRIVE file, at the places where it states them."""
    heights = [_value(part, "a") for part in root.iter("elevation")]
    slopes = [abs(_value(part, "b")) for part in root.iter("elevation")]
    if not any(heights) and not any(slopes):
        return ()
    low, high, steepest = min(heights), max(heights), 100 * max(slopes)
    return (f"elevation is dropped, the world is flat: {low:.1f} to {high:.1f} m, slopes of up to {steepest:.1f} %",)


def _value(element: Element, key: str) -> float:
    try:
        value = float(element.get(key, 0.0))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _dropped(root: Element) -> dict[str, int]:
    """Kinds of OpenDRIVE lanes and OpenStreetMap ways that carry no cars, with their numbers."""
    kinds: Counter[str] = Counter()
    for lane in root.iter("lane"):
        kind = lane.get("type")
        if (
            root.tag == "OpenDRIVE"
            and kind is not None
            and KINDS.get(kind, kind) not in DRIVING_KINDS | {"sidewalk", "none"}
        ):
            kinds[f"lane {kind}"] += 1
    if root.tag == "OpenDRIVE":
        kinds["object"] = sum(1 for _ in root.iter("object"))
        kinds["sign"] = sum(signal.get("dynamic") != "yes" for signal in root.iter("signal"))
        kinds["superelevation"] = sum(_value(part, "a") != 0.0 for part in root.iter("superelevation"))
        kinds["railroad switch"] = sum(1 for _ in root.iter("switch"))
    for way in root.iter("way"):
        tags = {tag.get("k"): tag.get("v") for tag in way.iter("tag")}
        for key in ("railway", "building", "waterway"):
            if key in tags:
                kinds[key] += 1
        if tags.get("highway") in {"footway", "path", "steps", "cycleway", "pedestrian", "track"}:
            kinds[f"highway {tags['highway']}"] += 1
    return {kind: number for kind, number in kinds.most_common() if number}


def _counted(warnings: tuple[str, ...]) -> dict[str, int]:
    """Warnings that differ only in what they quote, counted together under the first one's words."""
    first: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for warning in warnings:
        key = "'".join(part if k % 2 == 0 else "" for k, part in enumerate(warning.split("'")))
        numbers[first.setdefault(key, warning)] += 1
    return dict(numbers.most_common())
