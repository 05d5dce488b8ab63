"""`automedon train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sim.cli.common import Json, say


def train(
    config: Annotated[Path, typer.Argument(help="TOML file, for example configs/smoke.toml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/train-<config>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train the file's `stage`: policy (PPO), perception, distill (imitation), fuse (all behind the encoders), or all in turn.

    Example: automedon train configs/smoke.toml seed=1
    """
    from sim.stages import run_stage

    folder = out if out is not None else Path("runs") / f"train-{config.stem}"
    console = say(as_json)
    report = run_stage(config, overrides or [], folder, resume=resume, console=console)
    table = Table(title=f"Training: {config}")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right")
    for key, value in report.items():
        said = f"{value:,.3f}" if isinstance(value, float) else str(value)
        table.add_row(key, said if value == value else "none")
    console.print(table)
    if as_json:
        print(json.dumps({key: value for key, value in report.items() if value == value}))  # JSON has no NaN


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, such as best.safetensors of a run.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    as_json: Json = False,
) -> None:
    """Write the network of a checkpoint with 16 bits a number: half the size, to hand on.

    Example: automedon export runs/distill/best.safetensors policy.safetensors
    """
    from planning.checkpoint import export_checkpoint
    from sim.config import ConfigError

    if out.suffix != ".safetensors":
        raise ConfigError(f"export writes .safetensors, got {out.name!r}; give a name that ends so")
    size = export_checkpoint(checkpoint, out)
    say(as_json).print(f"wrote {out}, {size / 1e6:.1f} MB", highlight=False)
    if as_json:
        print(json.dumps({"path": str(out), "bytes": size}))
