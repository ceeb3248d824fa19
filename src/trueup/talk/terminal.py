"""A conversation in the terminal: with one model, or blind with two of which one says which is better."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trueup.errors import TrueupError
from trueup.feedback.judgement import Judgement
from trueup.feedback.use import Use
from trueup.progress import spinner
from trueup.run.files import write_jsonl
from trueup.talk.answers import Answer, How, Prompt
from trueup.talk.asked import BadRequest, Said
from trueup.talk.best import in_words
from trueup.talk.history import History
from trueup.talk.roster import Model
from trueup.talk.said import judgements
from trueup.talk.shown import Writer, harmless
from trueup.talk.speaker import Speaker

MOST_COLUMNS = 100  # of an answer
HELP = """\
  /up [COMMENT]     the last answer is good
  /down [COMMENT]   the last answer is bad
  /rate 1..5        the last answer from 1 (bad) to 5 (excellent)
  /better TEXT      the last answer as it should be
  /model [NAME]     the models there are; or talk to another one
  /new              begin anew: forget what was said
  /save FILE        write the conversation as a line of JSON, in the form of data.demonstrations
  /help             this list
  /quit             leave, as Ctrl+D does
A line that ends with \\ goes on in the next one. Ctrl+C stops an answer."""


class Leave(Exception):
    """The person is done."""


class Terminal:
    """What the person types, what is shown, and what is kept of it. Without a terminal, lines come from a pipe."""

    def __init__(
        self, speaker: Speaker, use: Use, how: How, who: str | None, session: str, *, best_of: int = 0
    ) -> None:
        """With `best_of`, each answer is the best of so many; 0 is off."""
        self.speaker, self.use, self.how, self.who, self.session = speaker, use, how, who, session
        self.best_of = best_of
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.console = Console(highlight=False, markup=False, soft_wrap=not self.is_terminal)
        self.history = History()
        self.number = 0  # of the message
        self.kept: list[str] = []  # kinds of the judgements given
        if self.is_terminal:
            import readline  # noqa: F401 - input() then has a history, and keys to edit with

    def line(self, prompt: str) -> str:
        """What the person types next; after a backslash at its end a line goes on in the next. Raises Leave."""
        parts: list[str] = []
        while True:
            try:
                part = input("...> " if parts else prompt) if self.is_terminal else _piped()
            except EOFError:
                if self.is_terminal:
                    print()
                raise Leave from None
            except KeyboardInterrupt:
                if not self.is_terminal:
                    raise
                print()
                self.tell("/quit or Ctrl+D leaves")
                parts = []
                continue
            if not part.endswith("\\"):
                return "\n".join([*parts, part]).encode("utf-8", "replace").decode()
            parts.append(part[:-1])

    def tell(self, text: str, style: str = "dim") -> None:
        """A line of ours."""
        self.console.print(Text(harmless(text), style=style))

    def say(self, label: str, model: Model, prompt: Prompt, how: How) -> Answer:
        """An answer of `model` as it grows, or the best of several once it is chosen, under its label.

        Ctrl+C stops it: it ends as far as it came.
        """
        width = min(shutil.get_terminal_size().columns, MOST_COLUMNS) if self.is_terminal else None
        self.console.print(Text(f"{label}>", style="bold cyan"))
        writer = Writer(sys.stdout, width)
        with stoppable() as stopped:
            if self.best_of:
                answer = self._best(model, prompt, how, stopped)
                writer.write(answer.text)
            else:
                (answer,) = self.speaker.answer(
                    model, prompt, how, heard=lambda which, piece: writer.write(piece), gone=stopped, keep=True
                )
        writer.end()
        if answer.finish == "cancelled":
            self.tell("stopped")
        elif answer.chosen is not None and answer.chosen.n < self.best_of:
            self.tell(f"stopped: the best of the {answer.chosen.n} answers that had ended")
        elif answer.finish == "length":
            self.tell(f"cut at {how.max_tokens} tokens: --max-tokens allows more")
        return answer

    def _best(self, model: Model, prompt: Prompt, how: How, stopped: Callable[[], bool]) -> Answer:
        """The best of `best_of` answers, with a line on how far they are; of those that ended, where it is stopped."""
        n = self.best_of
        with spinner(f"{n} answers at once, to show the best") as tell:
            every = self.speaker.answer(
                model,
                prompt,
                how,
                number=n,
                counted=lambda tokens, ended: tell(f"{n} answers at once: {tokens} tokens, {ended} of {n} ended"),
                gone=stopped,
                keep=True,
            )
            tell(f"choosing the best of {n} answers")
            (best,) = self.speaker.choose([one for one in every if one.finish != "cancelled"] or every)
        return best

    def ask(self, text: str) -> tuple[Prompt, How] | None:
        """The prompt of a message, and how it is answered; what is cut is said. None where it cannot be answered."""
        try:
            prompt, how, lines = self.history.ask(self.speaker, text, self.how)
        except TrueupError as error:
            self.tell(str(error), "red")
            return None
        for one in lines:
            self.tell(one, "yellow")
        how = How(**{**vars(how), "seed": self.how.seed + self.number})
        self.number += 1
        return prompt, how

    def keep(self, found: list[Judgement], answers: list[Answer]) -> None:
        """Into the run's store."""
        self.use.add(found, [answer.row() for answer in answers])
        self.kept += [one.kind for one in found]

    def command(self, text: str, last: Answer | None) -> Model | None:
        """Do what a line that begins with a slash says; returns the model to talk to from now on, if that changes."""
        name, _, rest = text.partition(" ")
        rest = rest.strip()
        if name in ("/quit", "/exit"):
            raise Leave
        if name in JUDGING:
            self._judge(name, rest, last)
        elif name == "/model":
            return self._model(rest)
        elif name == "/new":
            self.history = History()
            self.tell("a new conversation")
        elif name == "/save":
            self._save(rest)
        elif name == "/help":
            self.tell(HELP + (f"\n{in_words(self.best_of, self.speaker.roster)}" if self.best_of else ""))
        else:
            self.tell(f"there is no command {name}; /help lists them", "yellow")
        return None

    def _judge(self, name: str, rest: str, last: Answer | None) -> None:
        if last is None:
            self.tell("there is no answer to judge yet", "yellow")
            return
        try:
            said = JUDGING[name](rest)
            found = judgements(said, last.row()["uid"], self.who, self.session)
        except BadRequest as refused:
            self.tell(str(refused), "yellow")
            return
        self.keep(found, [last])
        self.tell(f"kept: {name[1:]}, of an answer of {last.model.name}, by {found[0].annotator}")

    def _model(self, name: str) -> Model | None:
        known = self.speaker.roster
        if not name:
            self.tell(f"models: {', '.join(known.models)}")
            return None
        try:
            found = known.find(name)
        except TrueupError as error:
            self.tell(f"{error.found}; {error.expected}", "yellow")
            return None
        self.tell(f"from now on {found.name} answers")
        return found

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name or path.exists() or not self.history.turns:
            fault = "name a file" if not name else f"{path} is there already" if path.exists() else "nothing was said"
            self.tell(f"{fault}: /save FILE writes a new file", "yellow")
            return
        try:
            write_jsonl(path, [{"messages": self.history.turns}])
        except OSError as error:
            self.tell(f"{path}: {error.strerror}", "yellow")
        else:
            self.tell(f"wrote {path}")


def _rated(rest: str) -> Said:
    if rest not in list("12345"):
        raise BadRequest("expected a number from 1 (bad) to 5 (excellent): /rate 4")
    return Said(completion_id="", score=int(rest))


JUDGING: dict[str, Callable[[str], Said]] = {
    "/up": lambda rest: Said(completion_id="", thumb="up", comment=rest or None),
    "/down": lambda rest: Said(completion_id="", thumb="down", comment=rest or None),
    "/rate": _rated,
    "/better": lambda rest: Said(completion_id="", better_answer=rest),
}


def talk(terminal: Terminal, model: Model) -> None:
    """A conversation with one model, until the person leaves."""
    last: Answer | None = None
    while True:
        text = typed(terminal)
        if text.startswith("/"):
            model = terminal.command(text, last) or model
            last = None if text.split()[0] == "/new" else last
            continue
        if (asked := terminal.ask(text)) is None:
            continue
        try:
            last = terminal.say(model.name, model, *asked)
        except TrueupError as error:  # an adapter that cannot be loaded: another one may be
            terminal.tell(str(error), "red")
        else:
            terminal.history.add(text, last.text)


def typed(terminal: Terminal) -> str:
    """The next line with something on it."""
    while True:
        if terminal.is_terminal:
            print()  # before the next exchange
        if text := terminal.line("you> ").strip():
            return text


def _piped() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within this, Ctrl+C is noted, not raised: what it yields says whether it came. A second one is raised."""
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)
