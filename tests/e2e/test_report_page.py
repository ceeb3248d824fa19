"""The report in a real browser: nothing is fetched, no error, no sideways scroll on a phone, in light and in dark."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from reported import built, evaluated, opened

from trueup.report import writing
from trueup.run.artifacts import write_jsonl

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

SCRIPT = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
LONG = "unbroken" * 40


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with long words, scripts and right-to-left text wherever somebody else writes."""
    run, draw = opened(tmp_path_factory.mktemp("report")), random.Random(0)
    sources: list[dict[str, Any]] = [{"path": f"{LONG}{SCRIPT}.csv", "weight": 1.0, "columns": {}, "files": {}}]
    data = {"demonstrations": {"sha256": "", "sources": sources}}
    read = {"demonstrations": {"num_rows": 9_999_999, "num_used": 7, "left_out": {LONG: 5}}}
    built(run, "sft", {"data": read}, system=f"{LONG} {SCRIPT}", data=data)
    path = evaluated(run, 1, "dpo", draw, "base", "best_of_16")
    evaluated(run, 1, f"kto@{'v' * 100}", draw)
    for stage in ("sft", "round-1/dpo"):
        write_jsonl(run.folder / stage / "metrics.jsonl", [{"step": i, "loss": 1 / i} for i in range(1, 900)])
    texts = {
        "sft": f"{LONG} {SCRIPT}",
        "aligned": "שלום עולם 👩‍👩‍👧 " + "word " * 400,
        "base": "short",
        "best_of_16": "",
    }
    lines = [
        {"prompt_id": str(i), "messages": [{"content": "كيف أصلح خيمتي؟"}], "preferred": {"disjoint": i / 10}, **texts}
        for i in range(10)
    ]
    write_jsonl(path / "answers.jsonl", lines)
    written = writing.write(run, "run.yaml")
    assert not written.not_shown and written.page.stat().st_size < 1_000_000
    return written.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_it_is_read_on_a_desktop_and_on_a_phone(
    browser: Browser, report: Path, width: int, height: int, scheme: Any
) -> None:
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    assert page.evaluate(wide) == 0
    assert (errors, asked) == ([], [report.as_uri()])
    assert page.title() == "r: what came of it"
    lightness = (
        "getComputedStyle(document.querySelector('{}')).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )
    paper, ink = (page.evaluate(lightness.format(*of)) for of in (("body", "backgroundColor"), ("svg text", "fill")))
    assert (paper > 600 and ink < 200) if scheme == "light" else (paper < 200 and ink > 600)
    direction = (
        "getComputedStyle([...document.querySelectorAll('.said')].find(one => one.innerText.startsWith('ש'))).direction"
    )
    assert page.evaluate(direction) == "rtl"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.context.close()


def test_it_prints_on_paper_whole(browser: Browser, report: Path, tmp_path: Path) -> None:
    """What is folded on the screen is on the paper."""
    page = browser.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    hidden = "[...document.querySelectorAll('details > .answers')].filter(one => one.offsetHeight === 0).length"
    assert page.evaluate("document.querySelectorAll('details > .answers').length") > 0
    assert page.evaluate(hidden) == 0
    page.close()
