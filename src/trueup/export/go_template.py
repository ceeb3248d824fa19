"""A chat template in Go's language, as Ollama wants it, read off what the tokenizer's own template writes.

Most chat formats write every message as something before it and something after it, by its role. Those texts are found
by rendering dialogues, and the result is held to the tokenizer's own rendering of others; a template that does anything
else, such as putting a system message into a question, has no such form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trueup.chat.template import Chat, Refused

Dialogue = list[dict[str, str]]
MARKS = ("first-mark", "second-mark", "third-mark", "fourth-mark", "fifth-mark")  # contents of the probing dialogues
SYSTEM, ASK, ANSWER = "Be brief.", "What is 2 + 2?", "4, I think."
DIALOGUES: tuple[Dialogue, ...] = (
    [{"role": "user", "content": ASK}],
    [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Two lines,\n\nplease: {{ a }} \"b\" 'c'"}],
    [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And <b>3</b> + 3?"},
    ],
    [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes,\nas ever."},
        {"role": "user", "content": "Why?"},
    ],
)


@dataclass(frozen=True)
class Format:
    """What is written around messages. `system` is None where the template takes no system message."""

    no_system: str  # before everything, where there is no system message
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str  # after everything: what an answer begins with

    def render(self, dialogue: Dialogue) -> str:
        """The dialogue as Ollama writes it by `go(self)`: all system messages first, joined by an empty line."""
        system = "\n\n".join(one["content"] for one in dialogue if one["role"] == "system")
        written = system.join(self.system) if system and self.system else self.no_system
        around = {"user": self.user, "assistant": self.assistant}
        for one in dialogue:
            if one["role"] in around:
                written += one["content"].join(around[one["role"]])
        return written + self.generation


def find(tokenizer: Any, *, adds_bos: bool) -> Format | None:
    """The form of the tokenizer's chat template; None where it has none that writes the same texts.

    `adds_bos`: who reads the text puts the beginning token before it, so the form leaves that token out.
    """
    chat = Chat(tokenizer)
    bos = tokenizer.bos_token if adds_bos else None

    def rendered(dialogue: Dialogue, *, generation: bool = True) -> str:
        return chat.text(dialogue, generation_prompt=generation).removeprefix(bos or "")

    try:
        form = _probed(rendered)
    except (Refused, ValueError):
        return None
    if form is None:
        return None
    for dialogue in DIALOGUES:
        if form.system is None and dialogue[0]["role"] == "system":
            continue
        try:
            if form.render(dialogue) != rendered(dialogue):
                return None
        except Refused:
            return None
    return form


def drops_thoughts(tokenizer: Any) -> bool:
    """Whether the tokenizer's template leaves the thoughts of earlier answers out, which no Format does."""
    dialogue = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "<think>\ntwo and two\n</think>\n\n4"},
        {"role": "user", "content": "Sure?"},
    ]
    return "two and two" not in Chat(tokenizer).text(dialogue, generation_prompt=True)


def _probed(rendered: Any) -> Format | None:
    roles = ("user", "assistant", "user", "assistant", "user")
    said = [{"role": role, "content": mark} for role, mark in zip(roles, MARKS, strict=True)]
    gaps = _between(rendered(said), MARKS)
    generation = rendered(said).removeprefix(rendered(said, generation=False))
    last = gaps[5].removesuffix(generation)  # after a question, at the end
    # between a question and its answer, and between that and the next question, stand an end and a beginning
    user_end, answer_start = _cut(gaps[1], last)
    finished = rendered(said[:4], generation=False)
    answer_end = _between(finished, MARKS[:4])[4]
    answer_end, user_start = _cut(gaps[2], answer_end)
    if not gaps[0].endswith(user_start) or generation.strip() not in ("", answer_start.strip()):
        return None
    head = gaps[0].removesuffix(user_start)
    try:
        with_system = rendered([{"role": "system", "content": "system-mark"}, said[0]])
    except Refused:
        return Format(head, None, (user_start, user_end), (answer_start, answer_end), generation)
    before, after = _between(with_system, ("system-mark", MARKS[0]))[:2]
    if not after.endswith(user_start):
        return None
    system = (before, after.removesuffix(user_start))
    return Format(head, system, (user_start, user_end), (answer_start, answer_end), generation)


def _between(text: str, marks: tuple[str, ...]) -> list[str]:
    """The texts before, between and after the marks. Raises ValueError where they do not come once each, in order."""
    found = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError(mark)
        before, text = text.split(mark)
        found.append(before)
    return [*found, text]


def _cut(gap: str, end: str) -> tuple[str, str]:
    """`gap` in two, the first of which is `end`. Raises ValueError where it does not begin so."""
    if not gap.startswith(end):
        raise ValueError(gap)
    return end, gap.removeprefix(end)


def go(form: Format) -> str:
    """The form as a template of Go's text/template, over Ollama's `.System` and `.Messages`."""
    head = _text(form.no_system)
    if form.system is not None:
        before, after = map(_text, form.system)
        head = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{'{{ else }}' + head if head else ''}{{{{ end }}}}"
    user, assistant = (_text(a) + "{{ .Content }}" + _text(b) for a, b in (form.user, form.assistant))
    return (
        f'{head}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}{_text(form.generation)}'
    )


def _text(literal: str) -> str:
    """`literal` where Go's template takes it for text."""
    return literal.replace("{{", '{{ "{{" }}')
