"""The command `trueup`: a command for each stage, and those that look at a run. Heavy imports are made inside."""

from __future__ import annotations

from pathlib import Path

import click

from trueup import __version__, ranks
from trueup.cli import building, looking
from trueup.cli.advise import advise
from trueup.cli.completion import completion
from trueup.cli.data import data
from trueup.cli.doctor import doctor
from trueup.cli.document import tell, with_json
from trueup.cli.group import Group, debug_option
from trueup.cli.labels import labels
from trueup.cli.labelstudio import labelstudio
from trueup.cli.options import DEVICE
from trueup.cli.people import people
from trueup.cli.report import report
from trueup.cli.rounds import lineage, next_round
from trueup.cli.run_files import init, schema
from trueup.cli.ship import ship
from trueup.cli.talking import chat, serve
from trueup.cli.vllm import vllm
from trueup.run import alike
from trueup.stages import STAGES

METHODS = [stage.name for stage in STAGES if stage.alignment]
ON_RANKS = {
    "run",
    "next-round",
    *(stage.name for stage in STAGES if not stage.alone),
}  # commands that several processes share


@click.group(cls=Group, params=[debug_option()])
@click.version_option(__version__)
def main() -> None:
    """From thumbs to an aligned adapter, on one GPU."""
    import os

    from trueup.models import device, noise

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look into every installed package for some
    if ranks.count() > 1:
        ranks.quiet() if click.get_current_context().invoked_subcommand in ON_RANKS else ranks.alone()
    alike.refuse_split_parameters()
    device.use_one_gpu()
    noise.sift()  # before any of the libraries is imported: some warn at once


@click.command()
@click.option("--human", is_flag=True, help="Wait for your own thumbs instead of simulated annotators.")
@click.option("--seed", default=0, show_default=True, help="Varies adapter, data order, sampling and annotators.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option("--port", type=click.IntRange(1024, 65535), default=8090, show_default=True, help="Of Label Studio.")
@DEVICE
@with_json
def demo(human: bool, seed: int, method: str, port: int) -> None:
    """Play the whole loop on a model of 135M parameters.

    SFT, sampling, thumbs in Label Studio, a reward model, alignment, the verdict.
    """
    from trueup.demo import play

    tell(**play(Path.cwd(), human=human, seed=seed, method=method, port=port))


main.add_command(init)
for stage in STAGES:
    main.add_command(building.command_of(stage))
for command in (
    building.run,
    next_round,
    report,
    ship,
    looking.status,
    looking.plan,
    looking.preflight,
    looking.curves,
    lineage,
    chat,
    serve,
    demo,
    data,
    labels,
    advise,
    labelstudio,
    people,
    vllm,
    doctor,
):
    main.add_command(command)
main.add_command(schema)
main.add_command(completion)

if __name__ == "__main__":
    main()
