"""Starting the same command as two ranks, as a launcher would."""

import os
import socket
import subprocess
from collections.abc import Sequence


def start(commands: Sequence[Sequence[str]], **environment: str) -> list[tuple[int, str]]:
    """(exit code, what was printed) of each rank, which does the command of its number; one alone is no rank."""
    common = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    port, processes = _free_port(), []
    for rank, command in enumerate(commands):
        own = dict(common)
        if len(commands) > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(commands))}
            own |= {"LOCAL_WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        said = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
