"""Which tokens end a turn: the one the chat template ends an answer with, and all that sampling stops at."""

from __future__ import annotations

from typing import Any

from trueup.chat.template import ANSWER, Chat, Refused
from trueup.errors import ModelError

WAY_ON = "choose the model's chat (instruct) version, or set model.chat_template to a file with a Jinja template"


def settle(tokenizer: Any, where: str, eos_token: str | None) -> None:
    """Make the tokenizer's eos_token the one its chat template ends an answer with; `eos_token` is model.eos_token.

    Raises ModelError, naming `where`, when there is no template, none of several is the default, the template fails on
    a question and its answer, or it ends the answer with no token of its own.
    """
    template = tokenizer.chat_template
    if template is None:
        raise ModelError(where, found="no chat template", expected="a chat model", next_step=WAY_ON)
    if isinstance(template, dict) and "default" not in template:
        raise ModelError(
            where,
            found=f"chat templates named {', '.join(sorted(template))}, and no default",
            expected="one chat template",
            next_step="set model.chat_template to the file of one of them, such as "
            f"additional_chat_templates/{min(template)}.jinja in the model's folder",
        )
    written, after = _ends(tokenizer, where)
    shown = f"the chat template ends an answer with {after!r}"
    known = tokenizer.get_vocab()
    if eos_token is not None:
        if eos_token not in known:
            raise ModelError(
                "model.eos_token",
                found=f"{eos_token!r} is no token of this model's vocabulary",
                expected="the token that ends an answer",
                next_step=f"{shown}: set model.eos_token to that token",
            )
        if known[eos_token] not in written:
            raise ModelError(
                "model.eos_token",
                found=f"{eos_token!r}, but {shown}",
                expected="a token that the template writes after an answer",
                next_step="set model.eos_token to that token, or model.chat_template to a template that writes yours",
            )
        tokenizer.eos_token = eos_token
        return
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    ends = [token for token in written if token in added]
    if tokenizer.eos_token is None and ends:
        token = tokenizer.convert_ids_to_tokens(ends[0])
        raise ModelError(
            where,
            found=f"the tokenizer names no end token (eos_token); {shown}",
            expected="the token that ends an answer: the model learns to stop by it",
            next_step=f'set model.eos_token: "{token}"',
        )
    if not ends:
        raise ModelError(
            where,
            found=f"the chat template writes no end token after an answer, only {after!r}",
            expected=f"the token that ends an answer, such as {tokenizer.eos_token or '</s>'!r}",
            next_step="set model.chat_template to a template that writes it; where that text is a single token of the "
            "vocabulary, name it as model.eos_token",
        )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])


def _ends(tokenizer: Any, where: str) -> tuple[list[int], str]:
    """(token ids, text) that the template writes after an answer."""
    chat = Chat(tokenizer)
    try:
        whole = chat.text([{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}])
    except Refused as refused:
        raise ModelError(
            where,
            found=f"the chat template does not take a question and its answer: {refused.detail}",
            expected="a template for messages of the roles user and assistant",
            next_step=WAY_ON,
        ) from None
    if ANSWER not in whole:
        raise ModelError(
            where, found="the chat template leaves out what the assistant says", expected="all of it", next_step=WAY_ON
        )
    after = whole[whole.rindex(ANSWER) + len(ANSWER) :]
    return chat.tokens(after), after


def end_ids(tokenizer: Any, model: Any = None) -> tuple[int, ...]:
    """Every token id that ends an answer: the trained one first, then those of the base's generation_config.

    Of that list only special tokens count: a configuration's default often names an ordinary word.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    named = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
    more = [] if named is None else [named] if isinstance(named, int) else list(named)
    special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids) if more else set()
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *(token for token in more if token in special)]))
