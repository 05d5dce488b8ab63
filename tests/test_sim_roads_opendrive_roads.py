"""Where lanes of OpenDRIVE roads run, against calculus, the mirror, and what files say about their own pieces."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import defusedxml.ElementTree as tree
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.roads.left_hand import mirror_opendrive
from sim.roads.opendrive_roads import (
    DRIVING_KINDS,
    OpenDriveRoad,
    UnknownGeometry,
    lanes_across,
    lanes_bend,
    read_road,
    reference_line,
)

SHAPES = st.one_of(
    st.just("<line/>"),
    st.floats(-0.05, 0.05).map(lambda c: f'<arc curvature="{c}"/>'),
    st.tuples(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05)).map(
        lambda c: f'<spiral curvStart="{c[0]}" curvEnd="{c[1]}"/>'
    ),
    st.tuples(st.floats(-1e-3, 1e-3), st.floats(-1e-5, 1e-5)).map(
        lambda c: f'<poly3 a="0" b="0" c="{c[0]}" d="{c[1]}"/>'
    ),
)


def road_xml(shape: str, length: float = 90.0, offsets: str = "", lanes: str = "", yaw: float = 0.4) -> str:
    """One road of one piece; lanes: lane elements of a single section, as <left> and <right>."""
    return (
        f'<road id="7" junction="-1" length="{length}"><link/><planView><geometry s="0" x="30" y="-8" hdg="{yaw}"'
        f' length="{length}">{shape}</geometry></planView><lanes>{offsets}<laneSection s="0">{lanes}</laneSection></lanes></road>'
    )


def lane_xml(number: int, *widths: tuple[float, float, float, float, float], kind: str = "driving") -> str:
    """A lane; widths: its start and the four coefficients of each polynomial."""
    polynomials = "".join(
        f'<width sOffset="{s}" a="{a}" b="{b}" c="{c}" d="{d}"/>' for s, a, b, c, d in widths or ((0, 3.5, 0, 0, 0),)
    )
    return f'<lane id="{number}" type="{kind}">{polynomials}</lane>'


ONE_LANE = f"<right>{lane_xml(-1)}</right>"


def _element(text: str) -> Element:
    element: Element = tree.fromstring(text)
    return element


@given(shape=SHAPES, yaw=st.floats(-3, 3))
def test_stations_are_metres_and_headings_are_directions(shape: str, yaw: float) -> None:
    road = read_road(_element(road_xml(shape, lanes=ONE_LANE, yaw=yaw)))
    stations = np.linspace(1.0, 89.0, 300)
    before, _ = reference_line(road, stations - 5e-3)
    after, _ = reference_line(road, stations + 5e-3)
    _, heading = reference_line(road, stations)
    step = (after - before) / 1e-2
    np.testing.assert_allclose(np.hypot(*step.T), 1.0, atol=2e-3)
    np.testing.assert_allclose(step, np.stack([np.cos(heading), np.sin(heading)], axis=1), atol=3e-3)


@given(curvature=st.floats(0.001, 0.1), side=st.sampled_from([-1.0, 1.0]))
def test_an_arc_keeps_its_distance_from_its_centre(curvature: float, side: float) -> None:
    road = read_road(_element(road_xml(f'<arc curvature="{side * curvature}"/>', lanes=ONE_LANE)))
    points, heading = reference_line(road, np.linspace(0.0, 90.0, 50))
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=1)
    centers = points + side / curvature * left
    np.testing.assert_allclose(centers, np.broadcast_to(centers[0], centers.shape), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["Town01", "Town10HD", "curves_elevation", "e6mini", "jolengatan", "multi_intersections"]
)
def test_each_piece_ends_where_the_file_begins_the_next(shared_data: Path, name: str) -> None:
    """Lines, arcs, spirals and cubics; files state places to a few digits, and e6mini bends by 2 mrad between its pieces."""
    joints = 0
    for element in tree.parse(shared_data / "opendrive" / f"{name}.xodr").getroot().iter("road"):
        try:
            road = read_road(element)
        except UnknownGeometry:
            continue
        for piece, following in zip(road.pieces, road.pieces[1:], strict=False):
            if piece.length_m < 0.05:
                continue
            (end,), (heading,) = reference_line(road, np.array([following.s_m - 1e-6]))
            assert np.hypot(*(end - [following.x, following.y])) < 0.02
            assert abs(np.sin(heading - following.yaw_rad)) < 0.02
            joints += 1
    assert joints > 0


@given(
    shape=SHAPES,
    widths=st.lists(st.tuples(st.floats(0, 4), st.floats(0, 0.02)), min_size=1, max_size=4),
    shift=st.floats(-3, 3),
)
def test_lanes_touch_and_begin_at_the_offset(shape: str, widths: list[tuple[float, float]], shift: float) -> None:
    lanes = "".join(lane_xml(-1 - k, (0, a, b, 0, 0)) for k, (a, b) in enumerate(widths))
    text = road_xml(
        shape, offsets=f'<laneOffset s="0" a="{shift}" b="0.01" c="0" d="0"/>', lanes=f"<right>{lanes}</right>"
    )
    road = read_road(_element(text))
    stations = np.linspace(0.0, 90.0, 20)
    centers, wide = lanes_across(road, road.sections[0], -1, stations)
    border = shift + 0.01 * stations
    for k, (a, b) in enumerate(widths):
        number = -1 - k
        np.testing.assert_allclose(wide[number], a + b * stations, atol=1e-9)
        np.testing.assert_allclose(centers[number] + 0.5 * wide[number], border, atol=1e-9)
        border = border - wide[number]
    assert lanes_bend(road)


@given(shape=SHAPES, a=st.floats(1, 4), c=st.floats(-1e-3, 1e-3), shift=st.floats(-2, 2))
def test_the_mirror_image_of_a_road_is_the_road_in_the_mirror(shape: str, a: float, c: float, shift: float) -> None:
    offsets = f'<laneOffset s="0" a="{shift}" b="0" c="{c}" d="0"/>'
    lanes = f"<left>{lane_xml(1, (0, a, 0, c, 0))}</left><right>{lane_xml(-1)}</right>"
    root = _element(f"<OpenDRIVE>{road_xml(shape, offsets=offsets, lanes=lanes)}</OpenDRIVE>")
    road = read_road(next(root.iter("road")))
    mirror_opendrive(root)
    image = read_road(next(root.iter("road")))
    stations = np.linspace(0.0, 90.0, 30)
    np.testing.assert_allclose(
        reference_line(image, stations)[0], reference_line(road, stations)[0] * [1, -1], atol=1e-9
    )
    here, wide = lanes_across(road, road.sections[0], 1, stations)
    there, as_wide = lanes_across(image, image.sections[0], -1, stations)
    np.testing.assert_allclose(there[-1], -here[1], atol=1e-9)
    np.testing.assert_allclose(as_wide[-1], wide[1], atol=1e-9)


def test_lanes_of_constant_width_do_not_bend() -> None:
    shoulder = lane_xml(-2, (0, 0.5, 0.1, 0, 0), kind="shoulder")
    lanes = f"<right>{lane_xml(-1)}{shoulder}</right>"
    assert not lanes_bend(read_road(_element(road_xml('<arc curvature="0.01"/>', lanes=lanes))))
    tapered = f"<right>{lane_xml(-1, (0, 3.5, 0, 0, 0), (40, 3.0, 0, 0, 0))}</right>"
    assert lanes_bend(read_road(_element(road_xml("<line/>", lanes=tapered))))


@pytest.mark.parametrize("kind", sorted(DRIVING_KINDS))
def test_lanes_of_every_kind_for_cars_bend(kind: str) -> None:
    tapered = lane_xml(-2, (0, 3.5, 0, 0, 0), (40, 3.5, -0.01, 0, 0), kind=kind)
    assert lanes_bend(read_road(_element(road_xml("<line/>", lanes=f"<right>{lane_xml(-1)}{tapered}</right>"))))


def test_an_offset_that_jumps_bends_and_there_is_none_before_the_first() -> None:
    def road(*steps: tuple[float, float]) -> OpenDriveRoad:
        offsets = "".join(f'<laneOffset s="{s}" a="{a}" b="0" c="0" d="0"/>' for s, a in steps)
        return read_road(_element(road_xml("<line/>", offsets=offsets, lanes=ONE_LANE)))

    assert lanes_bend(road((0, 0), (40, 3.5)))
    assert lanes_bend(road((40, 3.5)))
    assert not lanes_bend(road((0, 3.5)))
    assert not lanes_bend(road((0, 3.5), (40, 3.5)))
    late = road((40, 3.5))
    centers, _ = lanes_across(late, late.sections[0], -1, np.array([0.0, 39.9, 40.0, 90.0]))
    np.testing.assert_allclose(centers[-1], [-1.75, -1.75, 1.75, 1.75])


@pytest.mark.parametrize(
    ("kind", "bends"), [("median", True), ("shoulder", True), ("restricted", False), ("entry", False)]
)
def test_a_lane_beyond_one_that_netconvert_drops_bends(kind: str, bends: bool) -> None:
    between = lane_xml(-2, (0, 2.0, 0, 0, 0), kind=kind)
    assert (
        lanes_bend(
            read_road(_element(road_xml("<line/>", lanes=f"<right>{lane_xml(-1)}{between}{lane_xml(-3)}</right>")))
        )
        == bends
    )
    outside = lane_xml(-3, (0, 2.0, 0, 0, 0), kind=kind)
    assert not lanes_bend(
        read_road(_element(road_xml("<line/>", lanes=f"<right>{lane_xml(-1)}{lane_xml(-2)}{outside}</right>")))
    )


@pytest.mark.parametrize(
    "text",
    [
        road_xml("<helix/>", lanes=ONE_LANE),
        road_xml("", lanes=ONE_LANE),
        road_xml("<arc/>", lanes=ONE_LANE),
        road_xml('<arc curvature="nan"/>', lanes=ONE_LANE),
        road_xml("<line/>", length=1e9, lanes=ONE_LANE),
        road_xml("<line/>", length=-1.0, lanes=ONE_LANE),
        road_xml("<line/>", lanes='<right><lane id="-1" type="driving"><border sOffset="0"/></lane></right>'),
        road_xml("<line/>", lanes=ONE_LANE).replace('laneSection s="0"', 'laneSection s="0" singleSide="true"'),
        road_xml("<line/>", lanes=ONE_LANE).replace("planView", "plan").replace("geometry", "piece"),
    ],
)
def test_what_cannot_be_evaluated_says_so(text: str) -> None:
    with pytest.raises(UnknownGeometry):
        read_road(_element(text))
