"""Makes docs/reference/cli.md from the commands: `python -m tests.meta.cli_page`; a test compares.

Usage, options and meanings stand in `tidegate.cli` and nowhere else. Here stands only what click does not
know: the order of the page, and which object each command answers with under `--json`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import click

from tests.meta import sources
from tidegate.cli import main

PAGE: Final = sources.ROOT / "docs" / "reference" / "cli.md"

#: What `--json` prints, by command; "" where there is no such option.
ANSWERS: Final = {
    "init": '`{"file"}`',
    "up": "[ControlPlane](json.md#controlplane)",
    "down": '`{"stopped", "apps"}`',
    "deploy": '`{"rollout", "environment"}`: a [Rollout](json.md#rollout) that has ended and the '
    "[Environment](json.md#environment); with `--no-wait`, or if there was nothing to do, "
    '[Accepted](json.md#accepted); through the pipeline `{"promotion"}`: a [Promotion](json.md#promotion)',
    "rollback": "as `deploy`",
    "promote": "[Accepted](json.md#accepted)",
    "pause": "[Accepted](json.md#accepted)",
    "resume": "[Accepted](json.md#accepted)",
    "abort": "as `deploy`",
    "plan": "[DeployPlan](json.md#deployplan)",
    "pipeline": "[Pipeline](json.md#pipeline)",
    "approve": "[Promotion](json.md#promotion)",
    "withdraw": "[Promotion](json.md#promotion)",
    "status": "[Environment](json.md#environment), or [ControlPlane](json.md#controlplane) where no "
    "environment is meant",
    "history": "list of [Rollout](json.md#rollout)",
    "events": "list of [Event](json.md#event); with `--follow` one per line",
    "releases": "list of [Release](json.md#release)",
    "show": '`{"release", "rollouts"}`: a [Release](json.md#release) and a list of '
    "[Rollout](json.md#rollout), each with its `environment`; the newest canary of each environment has its "
    "`points`, a list of [Point](json.md#point)",
    "verify": "[Proof](json.md#proof)",
    "release export": '`{"file", "size_bytes"}`',
    "release import": "[Release](json.md#release)",
    "secret set": "[SecretChange](json.md#secretchange)",
    "secret list": "list of [Secret](json.md#secret)",
    "secret rm": "[SecretChange](json.md#secretchange)",
    "secret rotate": "[SecretsSealed](json.md#secretssealed)",
    "config diff": '`{"left", "right", "differences"}`: two [Configuration](json.md#configuration)s, and '
    'what differs: `{"name", "secret", "left", "right"}`',
    "key list": "list of [Key](json.md#key)",
    "key show": "[Key](json.md#key)",
    "key trust": "[Key](json.md#key)",
    "key distrust": '`{"name"}`',
    "key rotate": "[Key](json.md#key)",
    "source add": "[Source](json.md#source)",
    "source list": "list of [Source](json.md#source)",
    "source show": "[Source](json.md#source)",
    "source secret": "[Source](json.md#source), with its `hook_secret`",
    "source build": "[Push](json.md#push)",
    "source rm": '`{"removed"}`',
    "pushes": "list of [Push](json.md#push); with N a [Push](json.md#push) and its `output`, with `--follow` "
    "without it",
    "logs": "one [LogLine](json.md#logline) per line",
    "preview": "[Preview](json.md#preview)",
    "doctor": "list of [Finding](json.md#finding)",
    "backup": "[Backup](json.md#backup)",
    "token create": "[NewToken](json.md#newtoken)",
    "token list": "list of [Token](json.md#token)",
    "token revoke": "[Token](json.md#token)",
    "migrate status": "[Schema](json.md#schema)",
    "migrate plan": "[SchemaPlan](json.md#schemaplan)",
    "migrate resolve": "[Schema](json.md#schema)",
    "migrate adopt": "[Schema](json.md#schema)",
    "audit": "list of [AuditEntry](json.md#auditentry)",
    "audit verify": "[AuditProof](json.md#auditproof)",
    "demo": "the numbers of the table, with `passed`; with `--verdicts` also `findings`",
    "schema": "",
    "completion": "",
}

_HEAD: Final = """\
<!-- Made by `python -m tests.meta.cli_page`; a test keeps it in step. Do not edit. -->

# The command line

`tide` speaks to the control plane of this machine over a Unix socket in its data folder. Who may open that
socket (the user who started the control plane, and root) may do everything. With a token in the environment
variable `TIDEGATE_TOKEN` it may do what [the token allows](../how-to/tokens.md), and no more.

## Everywhere

{options}
ENV is the name of an environment of `tidegate.yaml` in this folder. It can be left out where there is only
one. In a folder without `tidegate.yaml` the app is found by what is deployed; name it with `--app` where that
is not clear.

| exit status | means |
|---|---|
| 0 | done |
| 1 | the rollout ended aborted, the build failed, or this machine could not: disk, port, no control plane |
| 2 | the request was wrong, or was refused; nothing was changed |
| 130 | `tide demo` was interrupted |

Ctrl-C while `tide deploy` shows a rollout ends the showing, with status 0; the rollout goes on.

With `--json` a command prints one JSON value on standard output and nothing else, and an error is a
[Problem](json.md#problem) there. Names of fields are never changed, only added to.
"""


def page() -> str:
    """The whole page."""
    context = click.Context(main, info_name="tide")
    known = commands()
    sections = "\n".join(_command(name, known[name], context) for name in ANSWERS)
    return f"{_HEAD.format(options=_options(main, context))}\n## Commands\n\n{sections}"


def commands(group: click.Group = main, prefix: str = "") -> dict[str, click.Command]:
    """Every command by its words; a group that does nothing by itself is only a word of others."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        words = f"{prefix}{name}"
        if isinstance(command, click.Group):
            found |= {words: command} if command.invoke_without_command else {}
            found |= commands(command, f"{words} ")
        else:
            found[words] = command
    return found


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["tide", name, *command.collect_usage_pieces(context)])
    parts = [f"### tide {name}\n", f"`{usage}`\n", f"{inspect.cleandoc(command.help or '')}\n"]
    options = _options(command, context)
    if options:
        parts.append(options)
    if ANSWERS[name]:
        parts.append(f"`--json`: {ANSWERS[name]}.\n")
    return "\n".join(parts)


def _options(command: click.Command, context: click.Context) -> str:
    rows = [_row(*record) for record in _records(command, context)]
    return "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def _records(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Names and meaning of each option, as `--help` shows them; what all commands have is left out."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not {"--help", "--json"} & set(parameter.opts):
            yield record


def _row(names: str, meaning: str) -> str:
    return f"| `{names}` | {' '.join(meaning.split())} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
