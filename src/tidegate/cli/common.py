"""What every command shares: its options, the way to the control plane, errors and output.

Exit status: 0 done, 1 the rollout ended aborted or this machine could not, 2 the request was wrong.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape

from tidegate import client, errors, paths

if TYPE_CHECKING:
    from tidegate.manifest import Manifest

MANIFEST = "tidegate.yaml"
#: Wide enough for every line and table: who reads a pipe looks for words side by side.
WIDTH_OF_NO_TERMINAL = 10_000
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class Tide:
    """One call of the command: where the control plane is, and how to answer."""

    home: paths.Home
    as_json: bool = False
    file: Path = Path(MANIFEST)
    app: str | None = None

    @property
    def out(self) -> Console:
        """For people; silent with --json."""
        return console(quiet=self.as_json)

    @contextmanager
    def connected(self) -> Iterator[client.Client]:
        """The client of this machine's control plane."""
        # Never an argument: everybody on the machine can read those.
        token = os.environ.get("TIDEGATE_TOKEN", "").strip()
        with client.Client(self.home.socket, token=token) as connection:
            yield connection

    def manifest(self) -> Manifest:
        """The manifest of this folder. Raises ManifestError, NotFoundError."""
        from tidegate import manifest

        return manifest.load(self.file)

    def has_one_environment(self) -> bool:
        """The manifest of this folder leaves no doubt which environment is meant."""
        return self.app is None and self.file.exists() and len(self.manifest().environments) == 1

    def place(self, environment: str | None, connection: client.Client | None = None) -> client.Place:
        """Which environment of which app is meant. Raises RequestError when that is not clear."""
        if self.app is None and self.file.exists():
            found = self.manifest()
            return client.Place(found.app, _only([name for name, _ in found.environments], environment))
        if connection is None:
            with self.connected() as opened:
                return self._deployed(environment, opened)
        return self._deployed(environment, connection)

    def target(self, environment: str | None, connection: client.Client) -> client.Place:
        """The same for what goes through the pipeline: without a name the last environment is meant."""
        if environment is None and self.app is None and self.file.exists():
            environment = self.manifest().environments[-1][0]
        return self.place(environment, connection)

    def _deployed(self, environment: str | None, connection: client.Client) -> client.Place:
        known = [(e["app"], e["environment"]) for e in connection.status()["environments"]]
        apps = sorted({app for app, _ in known if self.app in (None, app)})
        if len(apps) != 1:
            names = ", ".join(sorted({app for app, _ in known})) or "none"
            raise errors.RequestError(
                f"Which app? There is no {self.file} here.",
                hint=f"Name it with --app; deployed are: {names}.",
            )
        return client.Place(apps[0], _only([name for app, name in known if app == apps[0]], environment))

    def print_json(self, value: object) -> None:
        """The one answer of `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _only(names: list[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in names:
            raise errors.RequestError(
                f"There is no environment {plain(wanted)}.", hint=f"There are: {', '.join(names)}."
            )
        return wanted
    if len(names) != 1:
        raise errors.RequestError("Which environment?", hint=f"Name one of: {', '.join(names)}.")
    return names[0]


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Standard output or error; only a terminal has a width: a pipe or a file gets whole lines."""
    made = Console(stderr=stderr, quiet=quiet, highlight=False)
    if not made.is_terminal:
        made.width = WIDTH_OF_NO_TERMINAL
    return made


def plain(text: object) -> str:
    """Text from outside, without what could drive a terminal."""
    return CONTROL.sub("?", str(text))


def log_text(line: str) -> str:
    """A line of the log stream for people."""
    entry = json.loads(line)
    return f"{entry['service']}.{entry['index']} r{entry['release']} | {plain(entry['text'])}"


def safe(text: object) -> str:
    """Text from outside, for a line with markup."""
    return escape(plain(text))


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """A command with --json: hands it the `Tide`, exits with its status, shows errors as people need them."""

    def run(tide: Tide, /, as_json: bool, **kwargs: Any) -> None:  # noqa: FBT001 - click's
        tide.as_json = as_json
        try:
            status = function(tide, **kwargs)
        except errors.TidegateError as error:
            fail(tide, error)
        sys.exit(status or 0)

    functools.update_wrapper(run, function)
    return click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object, for programs.")(
        click.pass_obj(run)
    )


def fail(tide: Tide, error: errors.TidegateError) -> NoReturn:
    """Say what happened and what to do, on standard error; with --json as a problem object; and exit."""
    problem = errors.problem(error)
    if tide.as_json:
        tide.print_json(problem)
    else:
        out = console(stderr=True)
        out.print(f"[red]tide:[/red] {safe_lines(problem['title'])}", soft_wrap=True)
        if problem["detail"]:
            out.print(f"      {safe_lines(problem['detail'])}", soft_wrap=True)
    sys.exit(int(problem["exit_status"]))


def safe_lines(text: str) -> str:
    """Text of several lines from outside, for markup."""
    return "\n".join(safe(line) for line in text.splitlines())


def environment_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The optional ENV of most commands."""
    return click.argument("environment", metavar="[ENV]", required=False)(function)


def release_number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """`r42` or `42`, as a number."""
    if value is None:
        return None
    found = re.fullmatch(r"r?([1-9][0-9]{0,8})", value)
    if found is None:
        raise click.BadParameter(f"{plain(value)} is not a release; write r42 or 42")
    return int(found.group(1))
