"""An answer as it grows: its text in pieces that are final, and where a stop text ends it."""

from __future__ import annotations

from collections.abc import Sequence

from trueup.chat.template import Chat


class Spoken:
    """The text of one answer while its tokens are drawn. What `take` has given is never taken back."""

    def __init__(self, chat: Chat, prompt: list[int], ends: Sequence[int], stops: Sequence[str] = ()) -> None:
        """`ends` are the ids that end an answer, `stops` the texts before which it ends."""
        self.chat, self.prompt, self.ends, self.stops = chat, prompt, ends, stops
        self.ids: list[int] = []
        self.text = ""  # so far, without the stop text and what follows it
        self.stopped = False  # by a stop text
        self._given = 0

    def hear(self, token: int) -> bool:
        """Take one token more; True when the answer ends with it."""
        if token in self.ends:
            return True
        self.ids.append(token)
        self.text = self.chat.shown(self.prompt, self.ids)
        places = [at for stop in self.stops if (at := self.text.find(stop)) >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], True
        return self.stopped

    def take(self, *, whole: bool = False) -> str:
        """What is final of the text and was not given yet; with `whole`, all the rest of a finished answer."""
        sure = len(self.text) if whole or self.stopped else self._sure()
        piece = self.text[self._given : sure]
        self._given = max(self._given, sure)
        return piece

    def _sure(self) -> int:
        """How much of the text no later token changes."""
        text = self.chat.settled(self.prompt, self.ids)
        begun = max((_begun(text, stop) for stop in self.stops), default=0)
        return len(text) - begun


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)
