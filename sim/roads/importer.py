"""Imports OpenDRIVE, OpenStreetMap and SUMO files as SUMO networks, and says what was kept.

Knows file formats and netconvert; knows nothing about ground, scenery or traffic.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import defusedxml
import numpy as np
from defusedxml.ElementTree import iterparse

from sim.roads.netconvert import NetconvertError, netconvert
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.sumo_reader import MapError, read_network

MAX_FILE_BYTES = 200_000_000
ROOT_TAG = {".xodr": "OpenDRIVE", ".osm": "osm", ".net.xml": "net"}
SIGNAL_OPTIONS = (
    "--tls.default-type", "static", "--tls.green.time", "18", "--tls.yellow.time", "4", "--tls.allred.time", "2",
    "--tls.left-green.time", "0", "--tls.rebuild",
)  # fmt: skip
COMMON_OPTIONS = (
    "--no-turnarounds", "--junctions.corner-detail", "8", "--junctions.internal-link-detail", "12", "--precision", "3",
    "--geometry.max-angle", "180", "--output.street-names", "false",
)  # fmt: skip


@dataclass(frozen=True)
class ImportReport:
    """What an import kept: lanes and junction lanes for cars, signals, lanes that end nowhere, netconvert's warnings.

    notes: what was dropped or guessed, one sentence each.
    """

    source: str
    lanes: int
    junction_lanes: int
    lane_km: float
    signals: int
    dead_ends: tuple[str, ...]
    warnings: int
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "dead_ends": list(self.dead_ends), "notes": list(self.notes)}


def map_suffix(path: Path) -> str | None:
    """The suffix of a map file that can be read, or None."""
    return next((suffix for suffix in ROOT_TAG if path.name.lower().endswith(suffix)), None)


def import_map(path: Path) -> tuple[bytes, ImportReport]:
    """The SUMO network in, or made of, a .xodr, .osm or .net.xml file.

    Raises:
        MapError: the file is missing, too large, of another kind, malformed, or holds no road that a car can drive.
    """
    suffix = map_suffix(path)
    if suffix is None:
        raise MapError(f"{path}: not a map; allowed are .xodr (OpenDRIVE), .osm and .net.xml (SUMO)")
    tags = _check_xml(path, suffix)
    notes = ["the world is flat: elevation is dropped"] if tags["elevation"] or suffix == ".xodr" else []
    warnings = 0
    if suffix == ".net.xml":
        net_xml = path.read_bytes()
    else:
        options = [*COMMON_OPTIONS, *SIGNAL_OPTIONS]
        if suffix == ".xodr":
            inputs = "opendrive-files"
            options += ["--offset.disable-normalization", "--opendrive.curve-resolution", "1.0"]
            if tags["signal"]:
                notes.append("signal programs are SUMO's own: green 18 s, yellow 4 s, all red 2 s")
        else:
            inputs = "osm-files"
            options += [
                "--keep-edges.by-vclass", "passenger", "--geometry.remove", "--roundabouts.guess", "--ramps.guess",
                "--tls.guess-signals", "--tls.discard-simple", "--tls.join", "--junctions.join",
            ]  # fmt: skip
            notes.append("roads that cars may not use are dropped; signals at one junction are joined")
        try:
            conversion = netconvert({inputs: path}, options)
        except NetconvertError as error:
            raise MapError(f"{path}: netconvert cannot convert it: {error}; check the file in its own editor") from None
        net_xml, warnings = conversion.net_xml, len(conversion.warnings)
    network = read_network(net_xml)
    return net_xml, _report(path, network, warnings, notes)


def _check_xml(path: Path, suffix: str) -> Counter[str]:
    """How often each element occurs; read by a parser that refuses entities, before anybody else parses the file."""
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob(f"*{suffix}")) if path.parent.is_dir() else []
        raise MapError(f"{path}: no such file" + (f"; there are: {', '.join(near[:8])}" if near else ""))
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise MapError(f"{path}: {size} bytes, but a map has at most {MAX_FILE_BYTES}; cut out a part of it")
    if size == 0:
        raise MapError(f"{path}: the file is empty; export the map again")
    tags: Counter[str] = Counter()
    depth = 0
    try:
        for event, element in iterparse(path, events=("start", "end"), forbid_dtd=True):
            if event == "start":
                depth += 1
                if not tags and element.tag != ROOT_TAG[suffix]:
                    raise MapError(
                        f"{path}: the first element is <{element.tag}>, but a {suffix} file starts with "
                        f"<{ROOT_TAG[suffix]}>; is it another kind of file?"
                    )
                tags[element.tag] += 1
            else:
                depth -= 1
                element.clear()
    except (ParseError, defusedxml.DefusedXmlException) as error:
        raise MapError(f"{path}: not well-formed XML: {error}; repair or export it again") from None
    except (UnicodeDecodeError, LookupError) as error:
        raise MapError(f"{path}: its text cannot be decoded: {error}; save it as UTF-8") from None
    return tags


def _report(path: Path, network: RoadNetwork, warnings: int, notes: list[str]) -> ImportReport:
    driving = network.lane_kind == LaneKind.DRIVING
    outside = driving & (network.lane_junction < 0)
    leads_on = np.diff(network.successor_start) > 0
    dead = np.flatnonzero(outside & ~leads_on)
    return ImportReport(
        source=str(path),
        lanes=int(outside.sum()),
        junction_lanes=int((driving & (network.lane_junction >= 0)).sum()),
        lane_km=round(float(network.lane_length_m[outside].sum()) / 1000, 3),
        signals=len(network.signal_start) - 1,
        dead_ends=tuple(network.lane_name[k] for k in dead),
        warnings=warnings,
        notes=tuple(notes),
    )
