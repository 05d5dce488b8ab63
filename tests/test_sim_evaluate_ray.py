"""`automedon evaluate --ray` on a cluster of two nodes: the same results as one worker's, also where a node dies half way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sim.evaluate import evaluate

pytest.importorskip("ray", reason="the extra `ray` is not installed")

ROOT = Path(__file__).resolve().parent.parent
EPISODES = 12
SUITE = """
name = "short"
description = "Short routes on two maps."
split = "any"
episodes = [
{episodes}]

[settings]
agents = 6
route_min_m = 50.0
route_max_m = 70.0
timeout_s = 8.0
"""
# In a process of its own, because Ray leaves threads and warnings behind.
ON_A_CLUSTER = """
import json, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from sim.evaluate import evaluate

suite, out, dies = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
seen = {"done": 0, "done_at_death": None, "nodes": len(cluster.list_all_nodes())}

def advance(steps, episodes):
    seen["done"] += episodes
    if dies == "dies" and episodes and seen["done_at_death"] is None:
        seen["done_at_death"] = seen["done"]
        cluster.remove_node(second, allow_graceful=False)

evaluate(suite, "idle", ray=cluster.address, out=Path(out), worst=0, on_progress=advance)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [f'{{ map = "grid-small:{k % 2}", seed = {10_000 + k} }},' for k in range(EPISODES)]
    path = tmp_path_factory.mktemp("suite") / "short.toml"
    path.write_text(SUITE.replace("{episodes}", "\n".join(rows) + "\n"))
    return str(path)


@pytest.fixture(scope="module")
def alone(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    evaluate(suite, "idle", out=folder, worst=0)
    return folder


def results(folder: Path) -> dict[str, Any]:
    """What every file of the run says, but how long it took."""
    found = {path.name: json.loads(path.read_text()) for path in sorted((folder / "episodes").glob("*.json"))}
    return {name: {key: value for key, value in report.items() if key != "timing"} for name, report in found.items()}


@pytest.mark.parametrize("fate", ["lives", "dies"])
def test_a_cluster_of_two_nodes_gives_the_results_of_one_worker(
    suite: str, alone: Path, tmp_path: Path, fate: str
) -> None:
    command = [sys.executable, "-c", ON_A_CLUSTER, suite, str(tmp_path / "run"), fate]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["done"], seen["nodes"]) == (EPISODES, 2)
    if fate == "dies":
        assert seen["done_at_death"] < EPISODES  # there was something left to lose
    expected = results(alone)
    assert len(expected) == EPISODES
    assert results(tmp_path / "run") == expected
