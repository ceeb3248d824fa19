"""Label Studio behind nginx with TLS, as docs/labelling.md configures it, reached from a network of its own."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from nginx import AROUND, NGINX
from ports import free_port

from trueup.cli.main import main
from trueup.feedback import people, server
from trueup.feedback.connection import connect

ROOT = Path(__file__).parents[2]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HERE, THERE = "10.203.77.1", "10.203.77.2"  # the two ends of a cable between two networks


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://labels.example.org/label", "a host name of its own"),
        ("labels.example.org", "http:// or https:// and a host"),
        ("https://me:hunter2@labels.example.org", "http:// or https:// and a host"),
        ("https://labels.example.org/projects/1/data", "the server's address, not a page's"),
    ],
)
def test_what_cannot_be_a_public_address_is_refused(url: str, expected: str, tmp_path: Path) -> None:
    started = ["labelstudio", "start", "--data-dir", str(tmp_path / "data"), "--public-url", url]
    result = CliRunner().invoke(main, started)
    assert result.exit_code == 2 and expected in result.output and "hunter2" not in result.output
    assert not (tmp_path / "data").exists()


def documented(port: int, certificate: Path) -> str:
    """The configuration that the documentation shows, for this machine."""
    page = (ROOT / "docs" / "labelling.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```nginx\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    changes = {
        "listen 443 ssl": f"listen {HERE}:443 ssl",
        "server_name labels.example.org": f"server_name {HERE}",
        "/etc/ssl/labels.example.org.pem": str(certificate),
        "/etc/ssl/labels.example.org.key": str(certificate.with_suffix(".key")),
        "http://127.0.0.1:8090": f"http://127.0.0.1:{port}",
    }
    for before, after in changes.items():
        assert shown.count(before) == 1, before
        shown = shown.replace(before, after)
    return shown


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def may_make_networks() -> bool:
    if os.getuid() != 0 or NGINX is None or not shutil.which("ip") or not shutil.which("openssl"):
        return False
    probe = subprocess.run(["ip", "netns", "add", "trueup-probe"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", "trueup-probe"], capture_output=True, check=False)
    return probe.returncode == 0


@dataclass
class Far:
    """Another machine, as far as the network knows."""

    name: str
    certificate: Path
    labelstudio: Path

    def python(self, script: str, **values: Any) -> Any:
        """What a script prints there as JSON; `values` are its environment's."""
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env |= {"SSL_CERT_FILE": str(self.certificate), "URL": f"https://{HERE}", **values}
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", script]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    if not may_make_networks():
        pytest.skip("needs root, nginx, openssl and ip")
    folder, name, port = tmp_path_factory.mktemp("tls"), f"trueup-{os.getpid()}", free_port()
    certificate = folder / "labels.pem"
    subject = ["-subj", "/CN=labels", "-addext", f"subjectAltName=IP:{HERE}"]
    keys = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(certificate.with_suffix(".key"))]
    run("openssl", "req", "-x509", *keys, "-out", str(certificate), "-days", "2", *subject)
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", "trueup0", "type", "veth", "peer", "name", "trueup1", "netns", name)
        run("ip", "address", "add", f"{HERE}/30", "dev", "trueup0")
        run("ip", "link", "set", "trueup0", "up")
        for words in (("address", "add", f"{THERE}/30", "dev", "trueup1"), ("link", "set", "trueup1", "up")):
            run("ip", "-n", name, *words)
        run("ip", "-n", name, "link", "set", "lo", "up")
        server.start(folder / "labelstudio", port, public_url=f"https://{HERE}")
        config = AROUND.format(folder=folder, user=getpass.getuser(), server=documented(port, certificate))
        (folder / "nginx.conf").write_text(config)
        nginx = subprocess.Popen([str(NGINX), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")])
        for _ in range(100):
            try:
                httpx.get(f"https://{HERE}/health", verify=False, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield Far(name, certificate, folder / "labelstudio")
        nginx.terminate()
        nginx.wait(timeout=10)
        server.stop(folder / "labelstudio")
    finally:
        run("ip", "netns", "delete", name)


LOG_IN = """
import json, os, re, httpx
url = os.environ["URL"]
with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as browser:
    page = browser.get("/user/login/")
    hidden = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)
    form = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"], "csrfmiddlewaretoken": hidden}
    headers = {"Origin": url, "Referer": f"{url}/user/login/"}
    elsewhere = browser.post("/user/login/", data=form, headers=headers | {"Origin": "https://evil.example.org"})
    forged = browser.post("/user/login/", data=form | {"csrfmiddlewaretoken": "x" * 64}, headers=headers)
    answer = browser.post("/user/login/", data=form, headers=headers)
    who = browser.get("/api/current-user/whoami").json()
    print(json.dumps({"refused": [elsewhere.status_code, forged.status_code], "at": str(answer.url), "who": who["id"],
                      "secure": [cookie.secure for cookie in browser.cookies.jar]}))
"""
PUBLISH_AND_PULL = """
import json, os
from trueup.feedback.client import Client
from trueup.feedback.connection import connect
from trueup.feedback.screens import screen
from trueup.feedback.tasks import to_task
from pathlib import Path
client = Client(connect(Path("/nowhere"), os.environ["URL"]))
project = client.create_project("from afar", screen("thumbs"))
rows = [{"uid": f"{n:04}", "messages": [], "completion": f"{n} " * 600} for n in range(700)]
tasks = [to_task(row) for row in rows]
published = client.publish(project, tasks), client.publish(project, tasks)
print(json.dumps([project, *published, len({task["data"]["uid"] for task in client.pull(project)})]))
"""
JUDGE = """
import json, os
from playwright.sync_api import expect, sync_playwright
with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=os.environ["BROWSER"], args=["--no-sandbox"])
    page = chromium.new_page(viewport={"width": 1366, "height": 768}, ignore_https_errors=True)
    page.goto(os.environ["ADDRESS"])
    page.fill("input[name=email]", os.environ["EMAIL"])
    page.fill("input[name=password]", os.environ["PASSWORD"])
    page.click("button[type=submit]")
    page.goto(os.environ["ADDRESS"])
    expect(page.locator(".rl-ask")).to_be_visible(timeout=60_000)
    page.keyboard.press("1")
    expect(page.locator(".rl-ask .ant-radio-wrapper-checked")).to_be_visible()
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url) as made:
        page.keyboard.press("Control+Enter")
    print(json.dumps(made.value.status))
    chromium.close()
"""


@pytest.mark.slow
def test_from_another_network_people_log_in_and_judge_and_runs_publish_and_pull(far: Far) -> None:
    added = CliRunner().invoke(main, ["people", "add", "Lu", "--data-dir", str(far.labelstudio)])
    assert f"address:   https://{HERE}\n" in added.output and "ssh" not in added.output
    (lu,) = people.everybody(far.labelstudio)
    login = {"EMAIL": lu.email, "PASSWORD": lu.password}
    found = far.python(LOG_IN, **login)
    assert found["refused"] == [403, 403] and found["who"] == lu.id
    assert found["secure"] and all(found["secure"])
    assert found["at"].startswith(f"https://{HERE}/")

    token = connect(far.labelstudio).token
    project, *numbers = far.python(PUBLISH_AND_PULL, LABEL_STUDIO_API_KEY=token)
    assert numbers == [700, 0, 700]
    if BROWSER:
        address = f"https://{HERE}/projects/{project}/data?labeling=1"
        assert far.python(JUDGE, BROWSER=BROWSER, ADDRESS=address, **login) == 201


@pytest.mark.slow
def test_the_public_address_is_told_and_kept(far: Far) -> None:
    said = CliRunner().invoke(main, ["labelstudio", "status", "--data-dir", str(far.labelstudio)]).output
    assert f"people elsewhere reach it at https://{HERE}\n" in said and "unencrypted" not in said
    port = int(connect(far.labelstudio).url.rpartition(":")[2])
    assert server.stop(far.labelstudio)
    server.start(far.labelstudio, port)
    again = CliRunner().invoke(main, ["labelstudio", "status", "--data-dir", str(far.labelstudio)]).output
    assert again == said
