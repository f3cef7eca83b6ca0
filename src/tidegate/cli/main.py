"""The root of the `tide` command."""

from __future__ import annotations

from pathlib import Path

import click

import tidegate
from tidegate import paths
from tidegate.cli import audit, keys, look, machine, migrate, pipeline, release, source, story, vault
from tidegate.cli.common import MANIFEST, Tide


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(tidegate.__version__, prog_name="tide")
@click.option(
    "--home", type=click.Path(path_type=Path), help="Data folder of the control plane [TIDEGATE_HOME]."
)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=MANIFEST,
    show_default=True,
    help="Manifest.",
)
@click.option("--app", help="App, where no manifest is at hand.")
@click.pass_context
def main(context: click.Context, home: Path | None, file: Path, app: str | None) -> None:
    """Deploy web services on your own machines: in a little at a time, watched, and back by itself.

    Exit status: 0 done, 1 the rollout ended aborted or this machine could not, 2 the request was wrong.
    """
    chosen = paths.Home(home.expanduser().absolute()) if home else paths.default_home()
    context.obj = Tide(home=chosen, file=file, app=app)


for part in (machine, release, pipeline, look, migrate, keys, audit, vault, source, story):
    for command in part.COMMANDS:
        main.add_command(command)
