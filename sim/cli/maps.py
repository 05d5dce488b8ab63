"""`automedon maps`: list, generate, import and show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sim.cli.common import Json, say, show_values

app = typer.Typer(help="Generate, import and look at maps.", no_args_is_help=True)


@app.command("list")
def maps_list(as_json: Json = False) -> None:
    """The towns that can be driven by name."""
    from sim.roads.towns import SPLITS, TOWN_WORDS

    console = say(as_json)
    table = Table(title="Towns; NAME:SEED is another one of the kind, such as town:17")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it has")
    for name, words in TOWN_WORDS.items():
        table.add_row(name, words)
    console.print(table)
    seeds = {split: [numbers.start, numbers.stop - 1] for split, numbers in SPLITS.items()}
    shares = ", ".join(f"{first} to {last} {split}" for split, (first, last) in seeds.items())
    console.print(f"seeds: {shares}; training refuses all but its own", highlight=False)
    if as_json:
        print(json.dumps({"towns": list(TOWN_WORDS), "seeds": seeds}))


@app.command("generate")
def maps_generate(
    kind: Annotated[str, typer.Argument(help="Kind of town, see `automedon maps list`.")],
    seed: Annotated[int, typer.Option(help="Seed of the town.")] = 0,
    out: Annotated[Path | None, typer.Option(help="SUMO network to write (.net.xml).")] = None,
    left_hand: Annotated[bool, typer.Option("--left-hand", help="Everybody drives on the left.")] = False,
    as_json: Json = False,
) -> None:
    """Generate a town and write it as a SUMO network."""
    from sim.roads.left_hand import mirror_net_xml
    from sim.roads.towns import generate_town, seed_split

    target = out if out is not None else Path("runs") / f"{kind}-{seed}.net.xml"
    net_xml = generate_town(kind, seed)
    _write_map(
        mirror_net_xml(net_xml) if left_hand else net_xml, target, {"split": seed_split(seed) or "none"}, as_json
    )


@app.command("import")
def maps_import(
    source: Annotated[Path, typer.Argument(help="A .xodr, .osm or .net.xml file.")],
    out: Annotated[Path | None, typer.Option(help="SUMO network to write (.net.xml).")] = None,
    left_hand: Annotated[
        bool | None,
        typer.Option(
            "--left-hand/--right-hand",
            help="On which side one drives; by default what the file says, which OpenStreetMap seldom does, or the right.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import OpenDRIVE or OpenStreetMap and report what was kept."""
    from sim.roads.importer import import_map

    net_xml, report = import_map(source, left_hand=left_hand)
    target = out if out is not None else Path("runs") / f"{source.name.split('.')[0]}.net.xml"
    _write_map(net_xml, target, report.as_json(), as_json)


def _write_map(net_xml: bytes, target: Path, report: dict[str, Any], as_json: bool) -> None:
    from sim.config import ConfigError

    if not target.name.endswith(".net.xml"):
        raise ConfigError(f"--out writes a SUMO network, got {target.name!r}; give a name that ends with .net.xml")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(net_xml)
    console = say(as_json)
    if report:
        show_values(console, "Map", report)
    console.print(f"wrote {target}; look at it with: automedon maps show {target}", highlight=False)
    if as_json:
        print(json.dumps({**report, "path": str(target)}))


@app.command("show")
def maps_show(
    name: Annotated[str, typer.Argument(help="Town name, or a .xodr, .osm or .net.xml file.")],
    out: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
    as_json: Json = False,
) -> None:
    """Draw a map to a picture and say what is in it."""
    from sim.config import ConfigError
    from sim.roads.driving_map import load_map
    from sim.roads.importer import lane_counts
    from sim.roads.picture import draw_map

    target = out if out is not None else Path("runs") / f"{Path(name).name.split('.')[0].replace(':', '-')}.png"
    if target.suffix != ".png":
        raise ConfigError(f"--out writes a PNG picture, got {target.name!r}; give a name that ends with .png")
    driving_map = load_map(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_map(driving_map, target)
    report = {
        "map": driving_map.name,
        **lane_counts(driving_map.network),
        "static_solids": len(driving_map.scenery),
        "picture": str(target),
    }
    show_values(say(as_json), "Map", report)
    if as_json:
        print(json.dumps(report))
