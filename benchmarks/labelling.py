"""Publishing to Label Studio and pulling from it: seconds and memory. Last line: JSON.

Starts a Label Studio of its own in a temporary folder, on SQLite, or on a PostgreSQL of Debian's (--postgresql) that
runs as an unprivileged user beside it. Each of the tasks shows a prompt of 200 characters and an answer of 1,000. Every
step is a process of its own, so that its peak of memory is its own:

- publish: all tasks into an empty project;
- again: the same tasks once more, of which none is missing;
- pull: a project with as many tasks, each judged once: everything, for the first time;
- taken: the same, taken into the store of a run and counted, as `collect` does it before it freezes anything;
- news: the same project when ten judgements are new.

    python benchmarks/labelling.py [--tasks 10000] [--postgresql]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import common
import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # which know how to run a PostgreSQL

PROMPT, ANSWER = 200, 1_000  # characters
STEPS = ("publish", "again", "pull", "taken", "news")
THUMB = {"from_name": "thumb", "to_name": "response", "type": "choices"}


def tasks(count: int) -> Iterator[dict[str, Any]]:
    from trueup.feedback.tasks import to_task

    for number in range(count):
        dialogue = [{"role": "user", "content": f"{number} ".ljust(PROMPT, "q")}]
        yield to_task({"uid": f"{number:020x}", "messages": dialogue, "completion": f"{number} ".ljust(ANSWER, "a")})


def judged(count: int) -> Iterator[dict[str, Any]]:
    for number, task in enumerate(tasks(count)):
        result = [THUMB | {"value": {"choices": ["down" if number % 2 else "up"]}}]
        yield task | {"annotations": [{"result": result}]}


def one(step: str, folder: Path, project: int, count: int) -> dict[str, Any]:
    """Do a step here, and say how long it took, and what the most memory was."""
    from trueup.feedback.client import Client
    from trueup.feedback.connection import connect
    from trueup.feedback.standing import standing
    from trueup.feedback.store import Store
    from trueup.feedback.watch import SERVER_TIME, Watch

    client, store = Client(connect(folder)), Store(folder / "run")
    client.screen(project)  # the SDK is imported before the clock starts
    uids = [f"{number:020x}" for number in range(count)]
    asked = list(tasks(count)) if step in ("publish", "again") else []
    before = _peak("self")
    began = time.monotonic()
    if step in ("publish", "again"):
        number = client.publish(project, asked)
    elif step == "pull":
        number = sum(len(task.judgements) for task in Watch(client, project).look())
    elif step == "taken":
        number = standing(Watch(client, project).look(), uids, store, "key", each=1, wanted=count).labelled
    else:
        number = len(client.pull(project, (datetime.now(UTC) - timedelta(seconds=20)).strftime(SERVER_TIME)))
    seconds = time.monotonic() - began
    return {"seconds": seconds, "number": number, "before_mb": before, "peak_mb": _peak("self")}


def in_process(step: str, folder: Path, project: int, count: int) -> dict[str, Any]:
    options = ["--folder", str(folder), "--project", str(project), "--tasks", str(count)]
    return common.run(__file__, step, options)


def measured(count: int, postgresql: bool) -> dict[str, Any]:
    import postgres

    from trueup.feedback import server
    from trueup.feedback.client import BODY_TASKS, Client
    from trueup.feedback.screens import screen

    found: dict[str, Any] = {"tasks": count, "database": "postgresql" if postgresql else "sqlite"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(postgres.running()) if postgresql else None
        if database:
            os.environ["PGPASSWORD"] = database.password
        connection = server.start(folder, free_port(), database_url=database.url if database else None)
        stack.callback(server.stop, folder)
        client = Client(connection)
        empty, full = (client.create_project(title, screen("thumbs")) for title in ("to publish", "to pull"))
        found["server_idle_mb"] = _peak(str(server._process(folder)))
        for step in STEPS[:2]:
            found[step] = in_process(step, folder, empty, count)
        headers = {"Authorization": f"Token {connection.token}"}
        with httpx.Client(base_url=connection.url, headers=headers, trust_env=False, timeout=600) as admin:
            rows = list(judged(count))
            for start in range(0, count, BODY_TASKS):
                path = f"/api/projects/{full}/import"
                admin.post(path, json=rows[start : start + BODY_TASKS]).raise_for_status()
            time.sleep(21)
            for step in ("pull", "taken"):
                found[step] = in_process(step, folder, full, count)
            for task in client.pull(full)[:10]:
                result = [THUMB | {"value": {"choices": ["up"]}}]
                admin.patch(f"/api/annotations/{task['annotations'][0]['id']}/", json={"result": result})
            found["news"] = in_process("news", folder, full, count)
        found["server_peak_mb"] = _peak(str(server._process(folder)))
    return found


def _peak(process: str) -> float:
    """The most memory that a process has held so far, in MB; of this one, since it began its own program."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = common.parser(__doc__, STEPS)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--project", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        common.say(one(asked.side, asked.folder, asked.project, asked.tasks))
    else:
        print(json.dumps(measured(asked.tasks, asked.postgresql) | {"cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
