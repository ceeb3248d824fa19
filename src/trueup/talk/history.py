"""A conversation that fits into the context: its oldest exchanges are left out, and that is said."""

from __future__ import annotations

from dataclasses import replace

from trueup.data.dialogue import Messages
from trueup.errors import StageError
from trueup.talk.answers import How, Prompt
from trueup.talk.speaker import Speaker


class History:
    """What was said so far, as user and assistant took turns."""

    def __init__(self) -> None:
        self.turns: Messages = []
        self._told = 0  # exchanges of which it was said that they are left out

    def ask(self, speaker: Speaker, text: str, how: How) -> tuple[Prompt, How, list[str]]:
        """(prompt, how, lines to tell) of a message after what was said. Raises StageError when it alone is too long.

        An answer may be shorter than `how` says, where the context has no room for more even without any history.
        """
        asked = {"role": "user", "content": text}
        for left_out in range(0, len(self.turns) + 1, 2):
            prompt = speaker.prompt([*self.turns[left_out:], asked])
            if len(prompt.ids) + how.max_tokens <= speaker.context:
                return prompt, how, [*self._told_of(left_out // 2, speaker.context), *prompt.notes]
        room = speaker.context - len(prompt.ids)
        if room < 1:
            raise StageError(
                "your message",
                found=f"{len(prompt.ids)} tokens",
                expected=f"fewer than the context of the base, {speaker.context} tokens",
                next_step="shorten it",
            )
        lines = [*self._told_of(len(self.turns) // 2, speaker.context), *prompt.notes]
        lines.append(
            f"the answer can have {room} tokens at most: the context of {speaker.context} has no room for more"
        )
        return prompt, replace(how, max_tokens=room), lines

    def add(self, asked: str, answered: str) -> None:
        """An exchange that took place; one without an answer is forgotten, since no template takes it."""
        if answered.strip():
            self.turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]

    def _told_of(self, left_out: int, context: int) -> list[str]:
        if left_out <= self._told:
            return []
        self._told = left_out
        which = "exchange no longer fits" if left_out == 1 else f"{left_out} exchanges no longer fit"
        return [
            f"the first {which} into the context of {context} tokens, and the model does not see what was said there"
        ]
