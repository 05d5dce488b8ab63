"""A straight road of 600 m with a lane in each direction, as an OpenDRIVE file: a map that ends."""

from __future__ import annotations

from pathlib import Path

from sim.roads.driving_map import DrivingMap, load_map

_ROAD = """<?xml version="1.0"?>
<OpenDRIVE><header revMajor="1" revMinor="4"/>
<road id="1" junction="-1" length="600"><link/>
<type s="0" type="town"><speed max="13.9" unit="m/s"/></type>
<planView><geometry s="0" x="0" y="0" hdg="0.3" length="600"><line/></geometry></planView>
<lanes><laneSection s="0"><left>{left}</left><center><lane id="0" type="none"/></center><right>{right}</right>
</laneSection></lanes></road></OpenDRIVE>
"""
_LANE = '<lane id="{}" type="driving"><width sOffset="0" a="{}" b="0" c="0" d="0"/></lane>'


def straight_road(folder: Path, width_m: float = 3.5) -> DrivingMap:
    """The map, whose file is written to the folder."""
    path = folder / "road.xodr"
    path.write_text(_ROAD.format(left=_LANE.format(1, width_m), right=_LANE.format(-1, width_m)))
    return load_map(str(path))
