"""Worker processes end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.workers import serve_parent

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from sim.workers import serve_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), serve_parent) as pool:
        busy = pool.submit(time.sleep, 600)
        print(pool.submit(os.getpid).result(), *pool._processes, flush=True)
        busy.result()
"""


def runs(pid: int) -> bool:
    """Whether there is such a process that is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_when_their_parent_is_killed(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = {int(pid) for pid in parent.stdout.readline().split()}
        assert len(workers) == 2
        assert all(runs(pid) for pid in workers)
        parent.send_signal(how)
        parent.wait(timeout=20)
    until = time.monotonic() + 20
    while any(runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(runs(pid) for pid in workers)


def test_only_workers_serve() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="only a worker process"):
        serve_parent()
    assert signal.getsignal(signal.SIGINT) is before
