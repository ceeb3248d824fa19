"""A person in a real browser reads, presses 1 or 2, writes, submits by Ctrl+Enter; `collect` freezes just that."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from trueup.feedback import server
from trueup.feedback.connection import connect
from trueup.feedback.tasks import CUT
from trueup.run.artifacts import Completions, read_jsonl, write_jsonl
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

DIALOGUE = [
    {"role": "user", "content": "My tent leaks at the seams."},
    {"role": "assistant", "content": "How old is it?"},
    {"role": "user", "content": "Six years. <b>Is it worth mending?</b>"},
]
ANSWERS = (
    "Bring it in, please: we reseal seams.",
    "No.",
    "<img src=x onerror=\"document.title='owned'\"> Buy another.",
)


FROZEN = "annotations.jsonl"


def log_in(page: Page, data_dir: Path) -> None:
    known = server.login(data_dir)
    page.goto(known["url"])
    page.fill("input[name=email]", known["email"])
    page.fill("input[name=password]", known["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)


def test_thumbs_by_keyboard(tmp_path: Path, labelstudio: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: clicked\n")
    run = load(tmp_path / "run.yaml", {stage.name: stage.config for stage in STAGES})
    settings = LabelStudioConfig(url=connect(labelstudio).url, data_dir=labelstudio)
    rows = [
        {"uid": f"c{i}", "prompt_id": "p", "messages": DIALOGUE, "completion": answer, "finish": finish}
        for i, (answer, finish) in enumerate(zip(ANSWERS, ("eos", "length", "eos"), strict=True))
    ]
    write_jsonl(tmp_path / "completions.jsonl", rows)
    context = Context(run=run.model_copy(update={"labelstudio": settings}), run_dir=tmp_path, out=tmp_path / "out")
    context.out.mkdir()
    with pytest.raises(Waiting) as waiting:
        collect.run(collect.Config(), context, completions=Completions(tmp_path))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        log_in(page, labelstudio)
        page.goto(waiting.value.address)
        pressed = {}
        for _ in ANSWERS:
            card = page.locator(".rl-card")
            expect(card).to_be_visible(timeout=30_000)
            answer = next(text for text in ANSWERS if text in card.inner_text() and text not in pressed)  # as written
            for message in DIALOGUE:
                expect(page.get_by_text(message["content"], exact=True)).to_be_visible()
            expect(card.get_by_text(CUT)).to_have_count(1 if answer == "No." else 0)
            key = "1" if "please" in answer else "2"
            page.keyboard.press(key)
            expect(page.locator(".ant-radio-wrapper-checked")).to_be_visible()
            if answer == "No.":
                page.get_by_text("Write a better answer").click()
                page.locator("textarea[name=edited]").click()
                page.keyboard.press("Control+A")
                page.keyboard.type("No, sorry: 12 stitches are gone.")  # digits choose nothing here
                page.keyboard.press("Tab")
            page.keyboard.press("Control+Enter")
            pressed[answer] = key
            if len(pressed) < len(ANSWERS):
                expect(card).not_to_contain_text(answer, timeout=30_000)
            else:
                page.wait_for_timeout(2000)
        assert page.title() != "owned"
        browser.close()

    collect.run(collect.Config(), context, completions=Completions(tmp_path))
    found = [(row["uid"], row["kind"], row.get("up", row.get("text"))) for row in read_jsonl(context.out / FROZEN)]
    assert sorted(found) == [
        ("c0", "thumb", True),
        ("c1", "edit", "No, sorry: 12 stitches are gone."),
        ("c1", "thumb", False),
        ("c2", "thumb", False),
    ]
