"""Label Studio behind a real nginx with its own defaults: short addresses, small bodies, a path of its own."""

import getpass
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from nginx import AROUND, NGINX

from trueup.feedback.client import Client
from trueup.feedback.connection import Connection, connect
from trueup.feedback.screens import screen
from trueup.feedback.tasks import to_task

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on this machine")

SERVER = """\
  server {{
    listen 127.0.0.1:{port};
    location /tools/label/ {{ proxy_pass {behind}/; }}
  }}"""


@pytest.fixture
def proxied(tmp_path: Path, labelstudio: Path, port: int) -> Iterator[Connection]:
    direct = connect(labelstudio)
    (tmp_path / "nginx.conf").write_text(
        AROUND.format(folder=tmp_path, user=getpass.getuser(), server=SERVER.format(port=port, behind=direct.url))
    )
    process = subprocess.Popen([str(NGINX), "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf")])
    url = f"http://127.0.0.1:{port}/tools/label"
    for _ in range(100):
        try:
            httpx.get(url, trust_env=False)
            break
        except httpx.HTTPError:
            time.sleep(0.05)
    yield Connection(url, direct.token)
    process.terminate()
    process.wait(timeout=10)


def test_a_thousand_long_completions_are_published_and_pulled(proxied: Connection) -> None:
    client = Client(proxied)
    project = client.create_project("trueup behind nginx", screen("thumbs"))
    rows = [{"uid": f"{n:020x}", "messages": [], "completion": f"{n} " * 600} for n in range(1_000)]
    tasks = [to_task(row) for row in rows]  # more than the million bytes that nginx takes at once
    assert (client.publish(project, tasks), client.publish(project, tasks)) == (1_000, 0)
    assert {task["data"]["uid"] for task in client.pull(project)} == {row["uid"] for row in rows}
