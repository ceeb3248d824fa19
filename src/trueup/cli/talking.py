"""`trueup serve` and `trueup chat`: use the models of a run, and say what you think of their answers."""

from __future__ import annotations

from pathlib import Path

import click

from trueup.cli.document import tell, with_json
from trueup.cli.options import DEVICE, RUN_FILE, SET
from trueup.cli.use import BEST_OF, MAX_TOKENS, TEMPERATURE, TOP_P, need_reward, notes, opened, sampled_how
from trueup.errors import ServerError


@click.command()
@RUN_FILE
@SET
@click.option("--port", type=click.IntRange(1024, 65535), default=8000, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address that it listens on. Any that other machines reach needs a key, in TRUEUP_API_KEY.",
)
@TEMPERATURE
@TOP_P
@MAX_TOKENS
@BEST_OF
@DEVICE
@with_json
def serve(
    run_file: Path,
    overrides: tuple[str, ...],
    port: int,
    host: str,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int,
    best_of: int,
) -> None:
    """Serve the models of a run to programs, as OpenAI does.

    GET /v1/models lists the base and every adapter; POST /v1/chat/completions answers as any of them, in a stream or
    not; POST /v1/feedback takes what people think of an answer, and the next collect takes that in. The options hold
    where a request does not say how to sample. If TRUEUP_API_KEY is set, requests have to send it.
    """
    from trueup.cli import fault_log
    from trueup.talk import listen
    from trueup.talk.guard import is_loopback

    pipeline, roster = opened(run_file, overrides)
    how = sampled_how(pipeline, temperature, top_p, max_tokens, 0)
    need_reward(pipeline, roster, how, best_of)
    _need_server()
    key = listen.key_for(host)
    with listen.bind(host, port) as listening:
        from trueup.feedback.use import Use
        from trueup.progress import spinner
        from trueup.talk.server import Server, app
        from trueup.talk.speaker import Speaker

        with spinner("loading the base and an adapter"):
            speaker = Speaker(pipeline, roster)

        def fault(error: Exception) -> None:
            log = fault_log.keep(error, pipeline.folder)
            click.echo(f"a fault of trueup itself: {type(error).__name__}; the traceback is in {log}", err=True)

        server = Server(
            speaker,
            Use(pipeline.folder / "store"),
            how,
            lambda line: click.echo(line, err=True),
            fault,
            best_of=best_of,
        )
        address = listen.url(host, port)
        tell(url=address, models=list(roster.models), key_needed=key is not None)
        click.echo(f"serving {pipeline.run.name} at {address}; Ctrl+C stops it")
        click.echo(f"models: {', '.join(roster.models)}")
        for line in notes(pipeline, roster, best_of):
            click.echo(line)
        if not is_loopback(host):
            click.echo("warning: other machines reach it, and what they send travels unencrypted", err=True)
        listen.serve(app(server, key=key, loopback=is_loopback(host)), listening)


@click.command()
@RUN_FILE
@SET
@click.option("--model", help="Whom to talk to; by default the adapter of the run file's method.")
@click.option(
    "--blind",
    nargs=2,
    metavar="MODEL MODEL",
    help="Two models answer; say which answer is better, then see whose it was.",
)
@click.option("--who", help="Your name or id, which is kept with your judgements; by default an id of this session.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of answers and of blind sides; by default drawn.")
@TEMPERATURE
@TOP_P
@MAX_TOKENS
@BEST_OF
@DEVICE
@with_json
def chat(
    run_file: Path,
    overrides: tuple[str, ...],
    model: str | None,
    blind: tuple[str, str] | None,
    who: str | None,
    seed: int | None,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int,
    best_of: int,
) -> None:
    """Talk to a model of the run, and judge its answers.

    What you say with /up, /down, /rate, /better or a blind vote is kept, and the next collect takes it in; /help lists
    the commands. In a pipe, each line is a message.
    """
    import secrets

    if model is not None and blind is not None:
        raise click.UsageError("--model and --blind cannot be used together")
    pipeline, roster = opened(run_file, overrides)
    names = blind or (model or roster.default,)
    models = [roster.find(name) for name in names]
    if len(models) == 2 and models[0] == models[1]:
        raise click.UsageError(f"--blind needs two models, and both of these are {models[0].name}")
    from trueup.feedback.use import Use, annotator
    from trueup.progress import spinner
    from trueup.talk import blind as blindly
    from trueup.talk import terminal
    from trueup.talk.speaker import Speaker, drawn_seed

    session = secrets.token_hex(3)
    annotator(who, session)  # refused before anything is loaded
    seed = drawn_seed() if seed is None else seed
    how = sampled_how(pipeline, temperature, top_p, max_tokens, seed)
    need_reward(pipeline, roster, how, best_of)
    for line in notes(pipeline, roster, best_of):
        click.echo(line)
    with spinner("loading the base and an adapter"):
        speaker = Speaker(pipeline, roster)
    here = terminal.Terminal(speaker, Use(pipeline.folder / "store"), how, who, session, best_of=best_of)
    with_whom = models[0].name if len(models) == 1 else "two models, blind"
    here.tell(f"{pipeline.run.name}: talking to {with_whom}. /help lists the commands, Ctrl+D leaves.")
    wins: dict[str, int] = {}
    try:
        if len(models) == 2:
            wins = blindly.compare(here, models[0], models[1], seed)
        else:
            terminal.talk(here, models[0])
    except terminal.Leave:
        pass
    if wins:
        here.tell("preferred: " + ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in wins.items()))
    if here.kept:
        kept = "1 judgement is" if len(here.kept) == 1 else f"{len(here.kept)} judgements are"
        here.tell(f"{kept} kept for the next trueup collect")
    tell(models=[one.name for one in models], seed=seed, judgements=here.kept, preferred=wins)


def _need_server() -> None:
    """Raises ServerError where the packages that listen are not installed."""
    from importlib.util import find_spec

    if lost := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise ServerError(
            "trueup serve",
            found=f"{' and '.join(lost)} not installed",
            expected="the packages that trueup serve listens with",
            next_step=f"pip install {' '.join(lost)}",
        )
