"""What the documents say is so: commands, files and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
}


def commands() -> dict[str, dict[str, str]]:
    """Every command that the program offers: words after `automedon`, to its help texts by option."""
    import typer.main

    from sim.cli.app import app

    found: dict[str, dict[str, str]] = {}
    waiting = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        children = getattr(command, "commands", {})
        waiting += [((*words, name), child) for name, child in children.items()]
        if words:
            options = {o: getattr(p, "help", None) or "" for p in command.params for o in (*p.opts, *p.secondary_opts)}
            found[" ".join(words)] = {"": command.help or "", **options}
    return found


COMMANDS = commands()


def written_commands() -> list[tuple[str, str]]:
    """(document, command line) of each `automedon ...` in the documents, comments cut off."""
    lines = []
    for name, text in DOCUMENTS.items():
        code = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
        for block in code:
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.match(r"(?:\$ )?(?:\.venv/bin/)?automedon\s+([a-z].*?)\s*(?:#.*)?$", line.strip()):
                    lines.append((name, match[1]))
    return lines


@pytest.mark.parametrize(("document", "line"), written_commands())
def test_written_command_exists(document: str, line: str) -> None:
    words = line.split()
    name = max((c for c in COMMANDS if f"{line} ".startswith(f"{c} ")), key=len, default=None)
    assert name is not None, f"{document}: automedon has no command {words[0]!r}; it has {sorted(COMMANDS)}"
    used = {word.split("=")[0] for word in words if word.startswith("--")}
    assert used <= {*COMMANDS[name], "--help"}, f"{document}: automedon {name} has no {used - {*COMMANDS[name]}}"


def test_documents_hold_commands() -> None:
    assert len(written_commands()) >= 5


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert COMMANDS[name][""], f"automedon {name} has no help text"
    unexplained = [option for option, text in COMMANDS[name].items() if option.startswith("--") and not text]
    assert not unexplained
    assert re.search(rf"automedon {re.escape(name)}\b", README), f"the README does not mention `automedon {name}`"


def test_help_runs() -> None:
    run = subprocess.run([sys.executable, "-m", "sim", "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    assert all(verb in run.stdout for verb in ("drive", "train", "replay"))


def tree_in_readme() -> dict[str, str]:
    """Path to description, from the block that starts with a folder name and indents what is inside."""
    block = re.search(r"<!-- tree -->\s*```\w*\n(.*?)```", README, re.DOTALL)
    assert block is not None, "the README has no tree (a code block after <!-- tree -->)"
    paths: dict[str, str] = {}
    folders: list[str] = []
    for line in block[1].splitlines():
        match = re.match(r"( *)(\S+)\s*(.*)", line)
        assert match is not None, f"tree: cannot read {line!r}"
        depth = len(match[1]) // 2
        folders[depth:] = [match[2]]
        paths["".join(folders[: depth + 1])] = match[3]
    return paths


def test_tree_names_what_exists() -> None:
    missing = [path for path in tree_in_readme() if not (ROOT / path).exists()]
    assert not missing


def test_tree_is_complete_and_explained() -> None:
    tree = tree_in_readme()
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("perception", "fusion", "planning", "sim")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    lacking = sorted(modules - set(tree))
    assert not lacking, f"the README's tree needs a line for each of {lacking}"
    unexplained = [path for path, description in tree.items() if not description]
    assert not unexplained


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)", DOCUMENTS[name])
    broken = [t for t in targets if "://" not in t and not (ROOT / name).parent.joinpath(t).exists()]
    assert not broken


def test_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target for text in DOCUMENTS.values() for target in re.findall(r"(?:^|`)make ([a-z-]+)(?:`|$|\s+#)", text, re.M)
    }
    assert {"drive", "test"} <= named <= targets
