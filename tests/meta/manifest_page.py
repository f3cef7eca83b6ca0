"""Makes docs/reference/manifest.md from the definition of tidegate.yaml and from its annotated examples.

`python -m tests.meta.manifest_page` writes it; a test compares. The examples are files of their own, so
that the page, the tests and a curious reader use the same ones. Keys, defaults and meanings stand in
`tidegate.manifest.definition` and nowhere else.
"""

from __future__ import annotations

import json
import pathlib

from pydantic.fields import FieldInfo

from tidegate.manifest import checking, definition, gate_sections, migration_sections
from tidegate.manifest.reading import BYTES_MAX
from tidegate.manifest.section import Section

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "manifest.md"
EXAMPLES = ROOT / "docs" / "reference" / "manifest"

#: Where each section stands in a file, in the order of the page.
SECTIONS: dict[str, type[Section]] = {
    "": definition.ManifestSection,
    "artifact": definition.ArtifactSection,
    "services.*": definition.ServiceSection,
    "services.*.health": definition.HealthSection,
    "services.*.limits": definition.LimitsSection,
    "environments.*": definition.EnvironmentSection,
    "environments.*.strategy": definition.StrategySection,
    "environments.*.strategy.canary": definition.CanarySection,
    "environments.*.strategy.canary.steps[]": definition.StepSection,
    "environments.*.services.*": definition.OverrideSection,
    "environments.*.analysis": definition.AnalysisSection,
    "environments.*.verify": gate_sections.VerifySection,
    "environments.*.verify.smoke[]": gate_sections.SmokeSection,
    "environments.*.approve": gate_sections.ApproveSection,
    "environments.*.freeze[]": gate_sections.FreezeSection,
    "migrations": migration_sections.MigrationsSection,
    "environments.*.migrations": migration_sections.MigrationsHereSection,
}

_HEAD = """\
<!-- Made by `python -m tests.meta.manifest_page`; a test keeps it in step. Do not edit. -->

# tidegate.yaml

One file, in the folder of the app, says how it is built, run and released. `tide init` writes one with
comments, `tide schema` prints a JSON schema for editors. A mistake is never guessed away: an unknown key, a
key written twice and a value that makes no sense are all reported at once, in the order of the file, each
with its line and what would be right.
"""

_VALUES = f"""\
## Values

| kind | written | not |
|---|---|---|
| duration | `500ms`, `30s`, `2m`, `1h`, `1.5d` | `30`: the unit is missing |
| size | `512MB`, `1.5GB` (powers of 1000), `512MiB`, `1GiB` (powers of 1024) | `512m` |
| share | `5%`, `0.5%`, down to `0.01%`, in `analysis` to `0.0001%` | `0.05`: is it 5 % or 0.05 %? |
| ratio | `1.10`, `2`: so many times as much is permitted | `10%`: of what? |
| name | small letter, then small letters, digits and `-`, at most 40 | `Web`, `my_app` |
| `run`, `command` | one string, split into words as a shell does, or a list of words | `a && b`: no shell |
| `build` | one line for the shell, `make deps && make dist` | a list |
| moment | `fri 16:00`, in each week; `2026-12-20 16:00`, once; without a time: as it begins | `16:00` |
| host | `shop.example.com`; `"*"`, in quotes: every host that nobody else has | `https://shop.example.com/` |

YAML's guesses do not apply: a value is what its key says. Under `config` every value is the text that is
written: `no` is `no` and not false, `1.10` is `1.10` and not 1.1, `010` is `010` and not 8. Numbers and
true/false elsewhere stand without quotes. Anchors and aliases may be used for whole values; merging with `<<`
and tags may not. A file has at most {BYTES_MAX >> 20} MiB.

## Rules between values

- A service has a port if it says `port: true`, or if it has a route (in any environment), an HTTP or TCP
  check, or if another service needs it. A service without a port is a worker.
- Without `health`, a service with a port is ready when the port takes a connection, a worker when it has run
  for a second.
- `needs` means "calls": a service must exist, must have a port, cannot be the service itself, and needs must
  not form a circle. `port: false` for a service that is needed is a mistake, because workers are replaced
  after the services that serve: nothing could wait for them.
- A host leads to one service in one environment. Environments before the last one therefore say their own
  `route` for each service that has one, or `[]`.
- Steps of a canary grow and end below 100%.
- Without `strategy`, the last environment and one named `production` or `prod` get a canary, the others a
  switch.
- `analysis` of an environment wins over that at the top of the file key by key.
- `verify` of an environment replaces that at the top of the file. It has `run`, `smoke` or both; a service
  that is asked exists and has a port.
- A window of `freeze` begins and ends by the same kind of moment; by dates it ends after it begins, in the
  week it may go over the week's end.
- `secrets` keep the rules of `config`, and a name stands in one of the two. A secret that is a file takes two
  names: its own, and `<NAME>_FILE`. No command names a secret that is a variable, since everybody on the
  machine can read commands; a shell may, as in `[sh, -c, ...]`.
- Without `environments`, there is one: `production`.
"""


def page() -> str:
    """The whole page."""
    examples = "\n".join(_example(path) for path in examples_in_order())
    sections = "\n".join(_section(where, section) for where, section in SECTIONS.items())
    return f"{_HEAD}\n## Examples\n\n{examples}\n## Keys\n\n{sections}\n{_VALUES}\n{_later()}"


def examples_in_order() -> list[pathlib.Path]:
    """The annotated examples, each a whole file."""
    return sorted(EXAMPLES.glob("*.yaml"))


def _example(path: pathlib.Path) -> str:
    return f"```yaml\n{path.read_text()}```\n"


def _section(where: str, section: type[Section]) -> str:
    title = f"`{where}`" if where else "The top of the file"
    rows = "\n".join(_row(name, field) for name, field in section.by_key().items())
    doc = (section.__doc__ or "").replace("\n    ", "\n").strip()
    return f"### {title}\n\n{doc}\n\n| key | default | meaning | examples |\n|---|---|---|---|\n{rows}\n"


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "**required**"
    elif field.default in (None, [], {}, ""):
        default = ""
    else:
        default = f"`{_as_yaml(field.default)}`"
    examples = ", ".join(f"`{example}`" for example in field.examples or [])
    return f"| `{name}` | {default} | {field.description} | {examples} |"


def _as_yaml(value: object) -> str:
    """A default as one would write it."""
    if isinstance(value, list):
        return f"[{', '.join(_as_yaml(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _later() -> str:
    names = sorted({f"`{name}`" for section in SECTIONS.values() for name in section.later})
    return (
        "## Keys of later versions\n\n"
        f"{', '.join(names)} are refused with a message that says so, where they would stand: a file that\n"
        "relies on them must not be taken for one that works.\n"
    )


def section_of(where: str) -> type[Section]:
    """The section that the parser uses at this place: what SECTIONS must say."""
    keys: list[str | int] = []
    for part in where.split(".") if where else []:
        keys.append("name" if part == "*" else part.removesuffix("[]"))
        if part.endswith("[]"):
            keys.append(0)
    return checking.section_at(keys)


if __name__ == "__main__":
    PAGE.write_text(page())
