"""What every worker process of a pool does first. Knows processes and signals only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def serve_parent() -> None:
    """An interrupt is the parent's to handle, in order; where the parent is gone, however it ended, so is this process.

    Without that a pool's worker goes on with what it was given and then waits for ever for more.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("only a worker process has a parent to serve")
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_it, name="parent", daemon=True).start()
