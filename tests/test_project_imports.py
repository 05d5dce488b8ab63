"""Who may import whom: perception <- fusion <- planning <- sim, no cycles, and no torch in the simulator."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("perception", "fusion", "planning", "sim")
COMPOSITION_ROOT = "sim.cli"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every imported module, also inside functions; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def type_checking_removed(tree: ast.Module) -> ast.Module:
    """Without what stands under `if TYPE_CHECKING`, which never runs."""

    class Remove(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            names = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
            return node.orelse if "TYPE_CHECKING" in names else self.generic_visit(node)

    return Remove().visit(tree)


def arrows(tree: ast.AST) -> set[str]:
    """Our own modules that are imported."""
    found = set()
    for name in imported_names(tree):
        while name and name not in SOURCES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found


def at_import(tree: ast.Module) -> ast.Module:
    """Without the bodies of functions: what runs when the module is imported."""

    class Remove(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

    return Remove().visit(tree)


def parsed(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"), str(SOURCES[module]))


@cache
def arrows_of(module: str) -> set[str]:
    """What a module imports anywhere, save for type checking."""
    return arrows(type_checking_removed(parsed(module)))


@cache
def arrows_at_import(module: str) -> set[str]:
    """What a module imports when it is imported."""
    return arrows(at_import(type_checking_removed(parsed(module))))


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_to_the_left(module: str) -> None:
    """A module imports its own package or one further left, in functions and for type checking too."""
    layer = LAYERS.index(module.split(".")[0])
    wrong = sorted(name for name in arrows(parsed(module)) if LAYERS.index(name.split(".")[0]) > layer)
    assert not wrong, f"{module} imports {wrong}; allowed are {LAYERS[: layer + 1]}"


def test_modules_form_no_cycle() -> None:
    """Also through functions: a cycle that only runs late is a cycle."""
    graph = {module: arrows_of(module) - {module} for module in SOURCES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "cycle: " + " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_checks_above_see_arrows() -> None:
    """The walk itself: nested, aliased and conditional imports are found, and only ours."""
    tree = ast.parse("import numpy\ndef f():\n    from perception.sensors import SensorFrame as S\n    import sim.step")
    assert arrows(tree) == {"perception.sensors", "sim.step"}
    assert arrows(at_import(tree)) == set()
    assert arrows(type_checking_removed(ast.parse("if TYPE_CHECKING:\n    import sim.step"))) == set()


def reachable_at_import(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(arrows_at_import(current))
    return seen


@cache
def imports_torch(module: str) -> bool:
    return any(name.split(".")[0] in ("torch", "torchvision") for name in imported_names(parsed(module)))


def test_simulator_touches_torch_only_under_the_command_line() -> None:
    """In sim, torch (itself or through a network module) is for what the command line alone calls."""
    heavy = {m for m in SOURCES if any(imports_torch(n) for n in reachable_at_import(m) | arrows_of(m))}
    importers = {m: {other for other in SOURCES if m in arrows_of(other)} for m in SOURCES}

    def only_from_the_command_line(module: str, seen: frozenset[str] = frozenset()) -> bool:
        if module.startswith(COMPOSITION_ROOT):
            return True
        above = importers[module] - seen
        return bool(importers[module]) and all(only_from_the_command_line(m, seen | {module}) for m in above)

    allowed_above = {"sim.__main__"}
    for module in sorted(m for m in heavy if m.startswith("sim.") and m not in allowed_above):
        assert only_from_the_command_line(module), (
            f"{module} needs torch and is imported by {sorted(importers[module])}, not by {COMPOSITION_ROOT} alone"
        )


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stderr.splitlines()[-1]))


def test_environment_needs_no_torch() -> None:
    loaded = modules_after("import sim.env")
    assert "sim.env" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "torchvision")}


def test_help_imports_nothing_heavy() -> None:
    statement = (
        "from sim.cli.app import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    loaded = modules_after(statement)
    assert "sim.cli.app" in loaded
    assert not loaded & {"torch", "torchvision", "open3d", "numba", "cv2", "numpy", "gymnasium"}
