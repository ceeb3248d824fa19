"""A person in a real browser, on each screen: a judgement by mouse, one by hotkey, texts, a skip; just that is frozen.

`TRUEUP_SHOTS=docs/screens` writes what the screens look like into that folder.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from trueup.feedback import server
from trueup.feedback.connection import connect
from trueup.feedback.screens import version
from trueup.run.artifacts import Completions, read_jsonl, write_jsonl
from trueup.run.run_file import LabelStudioConfig, load
from trueup.run.stage import Context, Waiting
from trueup.stages import STAGES, collect

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("TRUEUP_SHOTS")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

SIZES = ((1366, 768), (390, 844))
GUIDELINES = 'Prefer what is true and short.\n\n1. Wrong is worse than short.\n2. No <b>advertising</b> & no "hype".'
LONG = "Yesterday it rained again, and the floor of the tent was wet in the morning. "
DIALOGUES = (
    [{"role": "user", "content": "My tent leaks at the seams. <b>Is it worth repairing?</b>"}],
    [{"role": ("user", "assistant")[n % 2], "content": f"{n}: {LONG * 2}"} for n in range(13)],
    [{"role": "user", "content": "How do I reseal it with a program?"}],
    [{"role": "user", "content": "כיצד אוטמים אוהל?"}],
)
SCRIPT = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ANSWERS = (
    ("Bring it in, please: we reseal seams.", f"{SCRIPT} Buy another."),
    ("Dry it first, then look for the seam that leaks. " * 12, "No."),
    (
        f"Like this:\n```python\nfor seam in tent.seams:\n\tseal(seam)  # {SCRIPT}\n```\nThen dry it.",
        "Ask somebody else.",
    ),
    ("אוטמים את התפרים בסיליקון.", "Please see the manual, page 12."),
)


@pytest.fixture(scope="module")
def page(labelstudio: Path) -> Iterator[Page]:
    """A browser in which somebody has logged in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        known = server.login(labelstudio)
        page.goto(known["url"])
        page.fill("input[name=email]", known["email"])
        page.fill("input[name=password]", known["password"])
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        yield page
        browser.close()


class Labelling:
    """A published run of one answer to each prompt, or of two where these are compared."""

    def __init__(self, folder: Path, labelstudio: Path, interface: str) -> None:
        (folder / "run.yaml").write_text(f"name: seen-{interface}\n")
        run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
        settings = LabelStudioConfig(url=connect(labelstudio).url, data_dir=labelstudio)
        self.texts: dict[str, str] = {}
        rows = []
        for n, (dialogue, answers) in enumerate(zip(DIALOGUES, ANSWERS, strict=True)):
            for side, text in zip("ab", answers if interface == "pairwise" else answers[n % 2 :][:1], strict=False):
                row = {"uid": f"{n}{side}", "prompt_id": str(n), "messages": dialogue, "completion": text}
                rows.append(row | {"finish": "length" if text == "No." else "eos"})
                self.texts[row["uid"]] = text
        write_jsonl(folder / "completions.jsonl", rows)
        self.context = Context(
            run=run.model_copy(update={"labelstudio": settings}), run_dir=folder, out=folder / "collect"
        )
        self.context.out.mkdir()
        self.config = collect.Config(interface=interface, guidelines=GUIDELINES, min_labelled_fraction=0.75)
        with pytest.raises(Waiting) as waiting:
            self.freeze()
        self.address = waiting.value.address

    def freeze(self) -> dict[str, Any]:
        return collect.run(self.config, self.context, completions=Completions(self.context.run_dir))

    def shown(self, cards: Locator) -> tuple[str, ...]:
        """The uids of the answers on the screen, side A first."""
        found = []
        for card in cards.all():
            said = card.inner_text().replace("\u00a0", " ")
            found.append(next(u for u, text in self.texts.items() if "".join(text.split()) in "".join(said.split())))
        return tuple(found)

    def frozen(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.context.out / "annotations.jsonl"))


def in_sight(page: Page, what: Locator) -> bool:
    box, size = what.bounding_box(), page.viewport_size
    assert size is not None
    return (
        box is not None
        and box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size["width"]
        and box["y"] + box["height"] <= size["height"]
    )


def look(page: Page, interface: str, number: int) -> None:
    """The answer and every button are in sight at both sizes."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        for name in ("submit", "skip"):
            assert in_sight(page, page.get_by_test_id(f"bottombar-{name}-button")), (interface, width, name)
        for choice in page.locator(".rl-ask .ant-radio-wrapper").all():
            assert in_sight(page, choice), (interface, width, choice.inner_text())
        top = page.locator(".rl-card").first.bounding_box()
        ask = page.locator(".rl-ask").bounding_box()
        assert top and ask and top["y"] + 30 < ask["y"], "the answer begins above the question"
        if SHOTS and number == 1:
            Path(SHOTS).mkdir(exist_ok=True, parents=True)
            page.screenshot(path=f"{SHOTS}/{interface}-{width}.png")
    page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})


def submit_in(page: Page, box: Locator, text: str) -> None:
    """Write into a box, and submit from inside it."""
    box.click()
    page.keyboard.press("Control+A")
    page.keyboard.type(text)
    page.keyboard.press("Control+Enter")


BETTER = "Yes: 12 stitches, and it is as good as new."
WHY = "because of 2 reasons"


def by_mouse(page: Page, interface: str) -> Any:
    if interface == "edit":
        page.locator(".rl-ask textarea").first.click()
        page.keyboard.press("Control+A")
        page.keyboard.type(BETTER)
        page.get_by_test_id("bottombar-submit-button").click()
        return BETTER
    names = {"thumbs": ("Good", True), "pairwise": ("B is better", "b"), "rating": ("5 excellent", 5)}
    name, said = names[interface]
    page.locator(".rl-ask .ant-radio-wrapper", has_text=name).click()
    page.get_by_test_id("bottombar-submit-button").click()
    return said


def by_hotkey(page: Page, interface: str, answer: str) -> Any:
    keys = {"thumbs": ("2", False), "pairwise": ("4", "both_bad"), "rating": ("2", 2), "edit": ("", answer)}
    key, said = keys[interface]
    if key:
        page.keyboard.press(key)
        expect(page.locator(".rl-ask .ant-radio-wrapper-checked")).to_be_visible()
    page.keyboard.press("Control+Enter")
    return said


def with_text(page: Page, interface: str) -> Any:
    """A choice by mouse, then one by hotkey, and a text in each box: Ctrl+Enter submits from the last."""
    keys = {"thumbs": ("Bad", "1", True), "pairwise": ("Both bad", "1", "a"), "rating": ("1 bad", "4", 4)}
    boxes = page.locator(".rl-ask").get_by_placeholder("optional", exact=False)
    if interface == "edit":
        submit_in(page, boxes, WHY)
        return None
    first, key, said = keys[interface]
    page.locator(".rl-ask .ant-radio-wrapper", has_text=first).click()
    page.keyboard.press(key)  # works although the mouse was used
    expect(page.locator(".rl-ask .ant-radio-wrapper-checked")).to_have_count(1)
    if interface == "thumbs":
        boxes.click()
        page.keyboard.type(WHY)
        page.get_by_text("Write a better answer").click()
        submit_in(page, page.locator("textarea[name=edited]"), BETTER)
    else:
        submit_in(page, boxes, WHY)
    return said


@pytest.mark.parametrize("interface", ["thumbs", "pairwise", "rating", "edit"])
def test_what_is_clicked_and_typed_is_what_is_frozen(
    interface: str, page: Page, labelstudio: Path, tmp_path: Path
) -> None:
    labelling = Labelling(tmp_path, labelstudio, interface)
    page.goto(labelling.address)
    cards = page.locator(".rl-card")
    said: dict[tuple[str, ...], Any] = {}
    for number in range(len(DIALOGUES)):
        place = page.locator(".rl-place").get_by_text(f"{number + 1} of {len(DIALOGUES)}", exact=True)
        expect(place).to_be_visible(timeout=30_000)
        on_screen = labelling.shown(cards)
        for message in DIALOGUES[number][-1:]:
            expect(page.get_by_text(message["content"].strip(), exact=True)).to_be_visible()
        expect(cards.get_by_text("The answer was cut here")).to_have_count(
            sum(labelling.texts[uid] == "No." for uid in on_screen)
        )
        if number < 2:
            look(page, interface, number)
        if number == 0:
            page.get_by_text("Guidelines, version").click()
            expect(page.get_by_text("1. Wrong is worse than short.")).to_be_visible()
            said[on_screen] = by_mouse(page, interface)
        elif number == 1:
            said[on_screen] = by_hotkey(page, interface, labelling.texts[on_screen[0]])
        elif number == 2:
            code = page.locator(".rl-card .rl-code")
            expect(code).to_have_count(4)  # the two fences and what is between them
            assert "seal(seam)  # <img" in code.nth(2).inner_text().replace("\u00a0", " ")
            expect(code.nth(2)).to_have_css("font-family", re.compile("mono"))
            expect(page.locator(".rl-card").get_by_text("Then dry it.")).not_to_have_css(
                "font-family", re.compile("mono")
            )
            if SHOTS and interface == "thumbs":
                page.screenshot(path=f"{SHOTS}/code-1366.png")
            said[on_screen] = with_text(page, interface) or labelling.texts[on_screen[0]]
        else:
            page.get_by_test_id("bottombar-skip-button").click()
        expect(place).to_have_count(0, timeout=30_000)
        assert page.title() != "owned"

    metrics = labelling.freeze()
    assert metrics["unusable_annotations"] == {"skipped": 1}
    rows = labelling.frozen()
    assert {row["guidelines"] for row in rows} == {version(GUIDELINES), metrics["guidelines"]}
    assert metrics["judged_under_guidelines"] == {version(GUIDELINES): len(rows)}
    assert all(row["lead_time"] > 0 for row in rows)
    expected = list(said.items())
    if interface == "thumbs":
        expected.append((list(said)[2], BETTER))
    found = [((row["a"], row["b"]) if interface == "pairwise" else (row["uid"],), verdict_of(row)) for row in rows]
    assert sorted(found, key=str) == sorted(expected, key=str)
    third = [row for row in rows if (row.get("a", row["uid"])) == list(said)[2][0]]
    assert {row["comment"] for row in third} == {WHY}


def verdict_of(row: dict[str, Any]) -> Any:
    return next(row[name] for name in ("up", "preferred", "rating", "text") if name in row)
