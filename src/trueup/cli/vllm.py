"""`trueup vllm install` and `status`: the environment that engine: vllm runs in."""

from __future__ import annotations

import click

from trueup.cli.document import tell, with_json


@click.group()
def vllm() -> None:
    """Install vLLM, apart from trueup's packages."""


@vllm.command()
@with_json
def install() -> None:
    """Install it, once: several gigabytes of packages, beside trueup's own and apart from them."""
    from trueup.progress import spinner
    from trueup.sampling import vllm_server

    with spinner(f"installing vLLM {vllm_server.VERSION}, which takes minutes"):
        folder = vllm_server.make_environment()
    click.echo(f"installed vLLM {vllm_server.VERSION} in {folder}")
    tell(installed=True, version=vllm_server.VERSION, folder=str(folder))


@vllm.command()
@with_json
def status() -> None:
    """Is it installed, and where."""
    from trueup.run import environments
    from trueup.sampling import vllm_server

    folder, made = environments.folder(vllm_server.NAME), environments.is_made(vllm_server.NAME)
    tell(installed=made, version=vllm_server.VERSION, folder=str(folder))
    if made:
        click.echo(f"vLLM {vllm_server.VERSION} is installed in {folder}")
    else:
        click.echo(f"vLLM {vllm_server.VERSION} is not installed; install it with: {vllm_server.INSTALL}")
