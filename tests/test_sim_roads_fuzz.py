"""Map files that somebody made to hurt: each is imported or refused in one line, within 10 s of computing and 1 GB."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.roads.importer import import_map
from sim.roads.map_xml import MapError
from sim.roads.sumo_reader import read_network

NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "1e308",
        "-1e308",
        "1e30",
        "9e9",
        "nan",
        "inf",
        "-inf",
        "",
        " ",
        "x",
        "1e-320",
        "-1",
        "99999999999999999999",
    ]
)
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, 3_000_000_000))
from sim.roads.importer import import_map
from sim.roads.map_xml import MapError
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
try:
    import_map(sys.argv[1])
    print("imported")
except MapError as error:
    print(str(error))
own, child = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(own.ru_utime - before + child.ru_utime, peak.split()[1])
"""


def _outcome(path: Path) -> str:
    """What import_map says; anything but a network or a MapError in one line fails."""
    said = ""
    try:
        net_xml, _ = import_map(path)
    except MapError as error:
        said = str(error)
    assert "\n" not in said
    assert said == "" or path.name in said
    assert said or np.isfinite(read_network(net_xml).point_x).all()
    return said


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_number_of_an_opendrive_file_may_be_anything(
    shared_data: Path, tmp_path: Path, data: st.DataObject
) -> None:
    text = (shared_data / "opendrive" / "fabriksgatan_traffic_lights.xodr").read_text()
    places = list(
        re.finditer(r'(length|[sxyabcdt]|hdg|curvature|[abcd][UV]|id|elementId|sOffset|from|to)="([^"]*)"', text)
    )
    path = tmp_path / "numbers.xodr"
    for place in sorted(
        data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4)), key=lambda m: -m.start(2)
    ):
        text = text[: place.start(2)] + data.draw(NUMBERS) + text[place.end(2) :]
    path.write_text(text)
    _outcome(path)


def _net(lanes: list[tuple[str, str]], connections: list[tuple[int, int, int]]) -> str:
    """A network of edges e0, e1, ... of one lane each (shape, speed), joined through internal lanes."""
    parts = ['<net><junction id="j" type="priority" x="0" y="0" incLanes="" intLanes="" shape="0,0 1,0 1,1"/>']
    for k, (shape, speed) in enumerate(lanes):
        parts.append(f'<edge id="e{k}"><lane id="e{k}_0" index="0" speed="{speed}" length="1" shape="{shape}"/></edge>')
    inner = [f":j_{n}_0" for n in range(len(connections))]
    parts[0] = parts[0].replace('intLanes=""', f'intLanes="{" ".join(inner)}"')
    for n, (a, b, c) in enumerate(connections):
        parts.append(
            f'<edge id=":j_{n}" function="internal"><lane id=":j_{n}_0" index="0" speed="5" length="1" shape="0,0 1,1"/></edge>'
        )
        parts.append(f'<connection from="e{a}" to="e{b}" fromLane="0" toLane="0" via=":j_{n}_0" dir="s" state="M"/>')
        onward = f' via=":j_{c}_0"' if c >= 0 else ""
        parts.append(f'<connection from=":j_{n}" to="e{b}" fromLane="0" toLane="0"{onward} dir="s" state="M"/>')
    return "".join([*parts, "</net>"])


WALKING_AREA = (
    '<edge id=":w" function="walkingarea">'
    '<lane id=":w_0" index="0" speed="1" length="1" shape="0,0 9,0 9,70000"/></edge></net>'
)
coordinates = st.one_of(st.floats(-500, 500).map(lambda v: f"{v:.2f}"), NUMBERS)
points = st.tuples(coordinates, coordinates).map(",".join)
shapes = st.one_of(
    st.lists(points, max_size=5).map(" ".join),
    st.sampled_from(["0,0 0,0", "5,5", "0,0 100,0", "0,0 0,0 0,0 50,0", "1", ","]),
)
lanes_of_net = st.lists(st.tuples(shapes, st.one_of(st.just("13.9"), NUMBERS)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_networks_of_any_structure_are_read_or_refused(data: st.DataObject) -> None:
    """Cycles of internal lanes, lanes without length, coordinates and speeds of any kind, connections to nowhere."""
    lanes = data.draw(lanes_of_net)
    ends, ways = st.integers(0, len(lanes)), st.integers(-1, 3)
    connections = data.draw(st.lists(st.tuples(ends, ends, ways), max_size=4))
    said = ""
    try:
        network = read_network(_net(lanes, connections).encode())
    except MapError as error:
        said = str(error)
    assert "\n" not in said
    if said:
        return
    assert np.isfinite(network.point_x).all()
    assert np.isfinite(network.point_yaw).all()
    assert (network.lane_length_m > 0).all()
    assert (network.lane_step_m > 0).all()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (_net([("0,0 100,0", "9"), ("100,0 200,0", "9")], [(0, 1, 1), (0, 1, 0)]), "leads back into itself"),
        (_net([("0,0 1e9,0", "9")], []), "coordinates beyond"),
        (_net([("0,0 20000,0", "9")], []), "20 km across"),
        (_net([("0,0 100,0", "9")], []).replace("1,0 1,1", "1,0 80000,0"), "80 km across"),
        (_net([("0,0 100,0", "9")], []).replace("</net>", WALKING_AREA), "70 km across"),
        (_net([("0,0 50,0", "9"), ("50,0 99,0", "9")], [(0, 1, -1)] * 80), "80 connections of a lane"),
        ("<net>" + "<a>" * 60 + "</a>" * 60 + "</net>", "more than 32 deep"),
        ('<!DOCTYPE n [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]><net>&b;</net>', "entities, which are refused"),
        ('<!DOCTYPE n SYSTEM "file:///etc/hostname"><net/>', "refused|no lane for passenger cars"),
    ],
)
def test_limits_say_what_is_wrong(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "limits.net.xml"
    path.write_text(content)
    assert re.search(complaint, _outcome(path))


def _bombs(folder: Path, town: str) -> dict[str, Path]:
    made = {
        "many.net.xml": "<net>" + "<a/>" * 12_000_000 + "</net>",
        "attributes.net.xml": "<net " + " ".join(f'a{k}=""' for k in range(5_500_000)) + "/>",
        "long.xodr": re.sub(r'length="[^"]*"', 'length="1e15"', town),
        "far.xodr": re.sub(r' x="[^"]*"', ' x="1e200"', town),
        "cubic.xodr": re.sub(r' bU="[^"]*"', ' bU="1e12"', town),
        "large.osm": "<osm>" + "x" * 70_000_000 + "</osm>",
    }
    for name, text in made.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in made}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a child process are set on Linux only")
def test_bombs_take_less_than_ten_seconds_and_a_gigabyte(shared_data: Path, tmp_path: Path) -> None:
    town = (shared_data / "opendrive" / "fabriksgatan_traffic_lights.xodr").read_text()
    for name, path in _bombs(tmp_path, town).items():
        run = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=False)
        assert run.returncode == 0, (name, run.stderr[-500:])
        said, figures = run.stdout.strip().splitlines()
        seconds, kilobytes = (float(v) for v in figures.split())
        assert seconds < 10.0, (name, said)
        assert kilobytes < 1_000_000, (name, said)  # netconvert has its own limit, below 1 GB
        assert said == "imported" or name in said
        path.unlink()
