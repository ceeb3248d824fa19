"""Shell completion: commands, options and files by click, the keys of the run file behind --set by us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem, get_completion_class

from trueup.run.run_file import model
from trueup.run.section import Section
from trueup.stages import STAGES

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script by which a shell completes what you type.

    It knows the commands, their options, and the keys of the run file behind --set.

    \b
    bash: trueup completion bash >> ~/.bashrc
    zsh:  trueup completion zsh >> ~/.zshrc
    fish: trueup completion fish > ~/.config/fish/completions/trueup.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has these three
    click.echo(found(ctx.find_root().command, {}, "trueup", "_TRUEUP_COMPLETE").source())


def complete_override(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`section.key=value` for each key, with its default or each of its choices as the value."""
    return [
        CompletionItem(f"{key}={value}", help=description)
        for key, values, description in _keys()
        for value in values
        if f"{key}={value}".startswith(incomplete)
    ]


def as_yaml(value: Any) -> str:
    """A value as the run file and --set take it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, float):
        written = f"{value:g}"
        return written.replace("e", ".0e") if "e" in written and "." not in written else written  # a number in YAML 1.1
    return str(value)


def _keys() -> Iterator[tuple[str, list[str], str]]:
    """(key, values, description) of every key of the run file."""
    for name, field in model({stage.name: stage.config for stage in STAGES}).model_fields.items():
        section = field.annotation
        inner = section.model_fields if isinstance(section, type) and issubclass(section, Section) else None
        for key, one in (
            {name: field}.items() if inner is None else {f"{name}.{k}": v for k, v in inner.items()}.items()
        ):
            choices = get_args(one.annotation) if get_origin(one.annotation) is Literal else ()
            default = "" if one.is_required() else as_yaml(one.get_default(call_default_factory=True))
            yield key, list(choices) or [default], one.description or ""
