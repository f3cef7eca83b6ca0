"""All keys of tidegate.yaml, once: types, defaults and why, what they mean, an example of each.

Hides nothing: this is the definition. Parser, editors' JSON schema (`tide schema`) and the reference page
are made from it, so that they cannot disagree. Defaults are written as a user would write them.

Invariants: a section is a `Section`, rejects keys that it does not know, and says in `later` which keys
belong to later versions. A key that may be written short (`health: /x`) is widened before it is read.

Neighbours: `section` says what a section is, `gate_sections` has those of gates, `scalars` the kinds of
values, `checking` the messages, `resolving` what follows.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from tidegate.manifest import gate_values, scalars
from tidegate.manifest.gate_sections import Approve, FreezeSection, Secrets, Verify
from tidegate.manifest.migration_sections import Migrations, MigrationsHere
from tidegate.manifest.reading import Scalar, shortened
from tidegate.manifest.section import Section, key, widened_empty

SERVICES_MAX = 200
ENVIRONMENTS_MAX = 50

_LATER_EVERYWHERE = frozenset({"monitors", "notify", "runtime"})

_IN_AN_ENVIRONMENT = "it stands in an environment"
_OR_AT_THE_TOP = f"{_IN_AN_ENVIRONMENT}, or at the top of the file for all of them"

#: Keys that people look for in more places than they stand in.
ELSEWHERE = {
    "analysis": _OR_AT_THE_TOP,
    "verify": _OR_AT_THE_TOP,
    "migrations": "it stands at the top of the file; an environment may change parts of it",
    **dict.fromkeys(("approve", "freeze", "secrets", "soak"), _IN_AN_ENVIRONMENT),
}


class ArtifactSection(Section):
    """What is built and shipped: once per release, the same bytes for every environment."""

    later = frozenset({"image"})

    package: scalars.Folder = key("The folder that becomes the package, relative to this file.", "dist/")
    build: scalars.ShellLine | None = key(
        "Command line that makes the folder. Your shell runs it as written, once per release, where `tide "
        "deploy` was called.",
        "make dist",
        default=None,
    )


class HealthSection(Section):
    """When an instance is ready. Short form: `health: /healthz` is `health: {path: /healthz}`.

    At most one of `path`, `tcp` and `command`. Without any, a service with a port is ready when the port
    answers, one without a port when it has run for a second.
    """

    path: scalars.HttpPath | None = key(
        "HTTP path; any 2xx or 3xx answer is ready.", "/healthz", default=None
    )
    tcp: scalars.OnlyTrue | None = key("The port takes a connection.", "true", default=None)
    command: scalars.Command | None = key(
        "Command in the instance's folder and environment; exit status 0 is ready.",
        "./bin/check",
        default=None,
    )
    interval: scalars.CheckTime = key("Time from one check to the next, 100ms to 1d.", "2s", default="1s")
    timeout: scalars.CheckTime = key("An answer that comes later is none.", "5s", default="2s")
    deadline: scalars.CheckTime = key(
        "From start to ready; an instance that needs longer ends the rollout, and all goes back.",
        "3m",
        default="60s",
    )


class LimitsSection(Section):
    """Resource limits of each instance. Not written: not limited."""

    memory: scalars.Memory | None = key("Memory, in MB, GB (1000) or MiB, GiB (1024).", "512MB", default=None)
    cpus: scalars.Cpus | None = key("Processors.", "1.5", default=None)
    processes: scalars.Limit | None = key("Processes and threads.", "200", default=None)
    open_files: scalars.Limit | None = key("Open files and connections.", "4096", default=None)


def _widened_health(value: Any) -> Any:
    return {"path": value} if isinstance(value, Scalar) and not value.empty else value


Health = Annotated[
    HealthSection, BeforeValidator(_widened_health, json_schema_input_type=scalars.HttpPath | HealthSection)
]


class ServiceSection(Section):
    """A runnable part of the app. Its name is a small letter, then small letters, digits and `-`."""

    later = _LATER_EVERYWHERE

    run: scalars.Command = key(
        "Command that starts an instance: one string, split into words as a shell would, or a list of "
        "words. No shell reads it; `$NAME` and `${NAME}` are filled from the instance's environment, where "
        "`PORT` is, too.",
        "./bin/web --port $PORT",
        "[./bin/web, --motto, two words]",
    )
    route: scalars.Hosts = key(
        'Host name, or a list of them, whose requests it answers; `"*"`: every host that nobody else has.',
        "shop.example.com",
        "[shop.example.com, www.example.com]",
        default=[],
    )
    health: Health | None = key("When an instance is ready.", "/healthz", "{tcp: true}", default=None)
    instances: scalars.Instances = key(
        "How many run, 1 to 100. Two or more survive the crash of one.", "2", default=1
    )
    needs: scalars.Needs = key(
        "Service, or a list of them, that it calls: they are updated before it and undone after it, and "
        "their address, of the same release, is in `<NAME>_URL`. `app/service` is a service of another app, "
        "in the environment of the same name: its stable release answers at `<APP>_<SERVICE>_URL`, and this "
        "app waits until it is live there.",
        "api",
        "[api, accounts/api]",
        default=[],
    )
    port: scalars.Flag | None = key(
        "Whether it listens on `PORT`. Not written: if it has a route, an HTTP or TCP check, or is needed. "
        "Without a port it is a worker, replaced after the services that have one; nobody can need it.",
        "true",
        default=None,
    )
    user_by: scalars.Identity = key(
        "What makes two requests the same user's in a canary: a cookie that the router sets, or the address "
        "(for clients without cookies).",
        "address",
        default="cookie",
    )
    limits: LimitsSection = key("Resource limits of each instance.", "{memory: 512MB}", default={})
    drain: scalars.Duration = key(
        "How long open connections may go on after new requests go elsewhere; then they are cut.",
        "10m",
        default="60s",
    )
    grace: scalars.Duration = key("From SIGTERM to SIGKILL.", "30s", default="10s")


class AnalysisSection(Section):
    """How a canary is judged from its traffic: against the live release, at the same time, in every look.

    It stands in an environment, and at the top of the file for all of them; each key that the environment
    writes wins. Short forms: `analysis: off`, `analysis: on`. A switch, a rollback and a first release have
    nothing to be compared with and are not judged.
    """

    enabled: scalars.Flag = key(
        "Whether it may abort. `false`, in short `analysis: off`: a canary goes on whatever it answers, and "
        "still goes back if it crashes or is not ready.",
        "false",
        default=True,
    )
    false_abort: scalars.Chance = key(
        "Chance that a release within the margins is aborted all the same, in a whole rollout.",
        "0.1%",
        default="1%",
    )
    margin: scalars.Ratio = key(
        "A canary with so many times the live release's share of errors is still good: the same code "
        "differs by a few per cent between two sets of users.",
        "1.5",
        default=1.1,
    )
    allowance: scalars.SmallShare = key(
        "And so is one that fails this share of its requests more. With 0%, a live release without any "
        "error would forbid the first one.",
        "0.1%",
        default="0.002%",
    )
    latency_margin: scalars.LatencySteps = key(
        "A canary that is so many times as slow is still good. It is brought up to whole steps of 5 %: 1.10 "
        "is 1.1025, 1.2 is 1.2155.",
        "1.5",
        default=1.1,
    )
    max_error_share: scalars.ShareLimit = key(
        "A canary that is shown to fail more than this share of its requests is aborted, whatever the live "
        "release does. `off`: no such limit.",
        "2%",
        default="off",
    )
    max_p99: scalars.LatencyLimit = key(
        "A canary is aborted that is shown to need longer for more than 1 % of its requests, whatever the "
        f"live release needs; 1ms to {scalars.LATENCY_S_MAX}s. `off`: no such limit.",
        "500ms",
        default="off",
    )
    overdue: scalars.Overdue = key(
        "A request that has waited for so long without an answer is overdue; that the canary has more of "
        "them counts against it before they time out. `auto`: four times what one of a thousand requests "
        "exceeded before the rollout, but 1 s to 30 s.",
        "10s",
        default="auto",
    )
    promote_early: scalars.Flag = key(
        "Whether a stage ends before its time when the canary is shown to be no worse. Leaks and nightly "
        "jobs need time, not requests: therefore only if you say so.",
        "true",
        default=False,
    )
    soak: scalars.Duration = key("But no stage ends earlier than after this time.", "5m", default="60s")
    on_little_evidence: scalars.OnLittleEvidence = key(
        "What to do when a stage's hold time is over and the canary is shown neither worse nor no worse: "
        "`go-on`; `wait` for more evidence; or `ask`: pause until `tide resume`. Small apps would never "
        "reach everybody if each stage had to wait.",
        "ask",
        default="go-on",
    )
    warmup: scalars.Duration = key(
        "Latencies of the canary's first time with requests do not count: caches are cold. Errors always do.",
        "1m",
        default="10s",
    )
    warmup_requests: scalars.Requests = key("Nor do those of so many first requests.", "500", default=20)


def _widened_analysis(value: Any) -> Any:
    wanted = "on, off, or keys such as margin: below it"
    if isinstance(value, list):
        raise scalars.Mistake(f"should be {wanted}, not a list")
    if isinstance(value, dict) or not isinstance(value, Scalar) or value.empty:
        return value
    if value.text not in ("on", "off", "true", "false"):
        raise scalars.Mistake(f"should be {wanted}, not {shortened(value.text)!r}")
    return {"enabled": "true" if value.text in ("on", "true") else "false"}


#: With what YAML readers of editors make of the two words.
_ShortAnalysis = Annotated[str, WithJsonSchema({"enum": ["on", "off", True, False]})]
Analysis = Annotated[
    AnalysisSection,
    BeforeValidator(_widened_analysis, json_schema_input_type=_ShortAnalysis | AnalysisSection),
]


class StepSection(Section):
    """One step of a canary. Short form: `5%` is `{share: 5%}`."""

    share: scalars.Share = key("Share of users on the new release, 0.01% to less than 100%.", "5%")
    hold: scalars.Hold | None = key(
        "How long; `manual`: until somebody says `tide promote`. Not written: `every` of the canary.",
        "10m",
        "manual",
        default=None,
    )

    @property
    def holds(self) -> bool:
        """Whether `hold` was written."""
        return "hold" in self.model_fields_set


def _widened_step(value: Any) -> Any:
    return value if isinstance(value, dict | list) else {"share": value}


Step = Annotated[
    StepSection, BeforeValidator(_widened_step, json_schema_input_type=scalars.Share | StepSection)
]


class CanarySection(Section):
    """A growing share of users, the same users at every step, watched; everybody after the last step."""

    steps: tuple[Step, ...] = key(
        "Shares of users, each larger than the one before. 100% comes after the last by itself.",
        "[5%, 50%]",
        "[1%, {share: 10%, hold: manual}]",
        default=["1%", "5%", "25%", "50%"],
        min_length=1,
        max_length=scalars.ITEMS_MAX,
    )
    every: scalars.Hold = key("How long each step is held, or `manual`.", "10m", "manual", default="2m")


class StrategySection(Section):
    """How a release takes over: `switch` (everybody at once), `canary` (with its defaults), or a mapping."""

    canary: CanarySection | None = key(
        "A canary with steps of your own.", "{steps: [5%, 50%], every: 10m}", default=None
    )


def _widened_strategy(value: Any) -> Any:
    """`switch` is a section in which nothing is written; nobody can write that as a mapping."""
    wanted = "switch, canary, or canary: {steps: [...], every: ...}"
    if value == {} or isinstance(value, list):
        raise scalars.Mistake(f"should be {wanted}")
    if isinstance(value, dict):
        return value
    text = scalars.text_of(value, wanted)
    if text not in ("switch", "canary"):
        raise scalars.Mistake(f"should be {wanted}, not {shortened(text)!r}")
    return {"canary": {}} if text == "canary" else {}


_ShortStrategy = Annotated[str, Field(pattern="^(switch|canary)$")]
Strategy = Annotated[
    StrategySection,
    BeforeValidator(_widened_strategy, json_schema_input_type=_ShortStrategy | StrategySection),
]


class OverrideSection(Section):
    """What is different for one service in one environment. Keys that are not written stay as they are."""

    later = _LATER_EVERYWHERE

    instances: scalars.Instances | None = key("Instead of the service's.", "4", default=None)
    route: scalars.Hosts | None = key(
        "Instead of the service's; `[]`: no host in this environment.",
        "staging.shop.example.com",
        default=None,
    )
    limits: LimitsSection = key(
        "Each limit that is written, instead of the service's.", "{cpus: 4}", default={}
    )


class EnvironmentSection(Section):
    """One step of the pipeline, with its own configuration, hosts and strategy.

    Environments are passed in the order of the file. Every environment needs its own hosts: where a service
    has a route, only the last environment may use it as it stands, the others say theirs.
    """

    later = _LATER_EVERYWHERE

    strategy: Strategy | None = key(
        "How a release takes over: `switch`, `canary`, or a canary with steps of its own. Not written: "
        "`canary` in the last environment and in one named `production` or `prod`, because that is where "
        "users are; `switch` in the others, because there nobody waits but you.",
        "switch",
        "{canary: {steps: [5%, 50%], every: 10m}}",
        default=None,
    )
    keep_warm: scalars.Duration = key(
        "How long the replaced release goes on running without requests, so that going back is a flip. For "
        "as long, a crash loop of the new release sends everybody back.",
        "1h",
        default="10m",
    )
    analysis: Analysis = key(
        "How a canary is judged here; each key wins over the one at the top of the file.",
        "off",
        "{max_p99: 500ms}",
        default={},
    )
    config: Annotated[dict[scalars.Variable, scalars.ConfigText], BeforeValidator(widened_empty)] = key(
        "Environment variables of all services here. Values are taken as they are written: `no` is the text "
        "no, 1.10 is the text 1.10. `PORT`, `TIDEGATE_*` and `<NAME>_URL` of a needed service are set by "
        "Tidegate and cannot be written.",
        "{LOG_LEVEL: info}",
        default={},
    )
    secrets: Secrets = key(
        "Names of secrets that all services here are given as environment variables; `tide secret set` takes "
        "the values. `NAME: file`: the value is in a file in memory, its path in `<NAME>_FILE`.",
        "[DATABASE_URL, API_KEY]",
        "[DATABASE_URL, TLS_KEY: file]",
        "{DATABASE_URL: variable, TLS_KEY: file}",
        default={},
        max_length=gate_values.SECRETS_MAX,
    )
    verify: Verify = key(
        "How a release is tried here before the first user sees it; replaces that at the top of the file.",
        "./bin/smoke",
        "{smoke: [/healthz], timeout: 2m}",
        "off",
        default=None,
    )
    soak: scalars.Duration = key(
        "How long a release must be live here before it may enter the next environment.", "1h", default="0s"
    )
    approve: Approve | None = key(
        "Who must agree before a release may enter. Not written: nobody is asked.",
        "manual",
        "{count: 2, not_by_requester: true}",
        default=None,
    )
    freeze: tuple[FreezeSection, ...] = key(
        "Windows in which nothing new enters; rollbacks always may.",
        "[{from: fri 16:00, until: mon 08:00, zone: Europe/Berlin}]",
        default=[],
        max_length=gate_values.FREEZES_MAX,
    )
    migrations: MigrationsHere = key(
        "What is different about migrations here; `off`: none run.",
        "{contract_after: 10m}",
        "off",
        default={},
    )
    services: Annotated[dict[scalars.Name, OverrideSection], BeforeValidator(widened_empty)] = key(
        "What is different here, by service.", "{web: {instances: 4}}", default={}
    )


class ManifestSection(Section):
    """The whole file."""

    later = _LATER_EVERYWHERE

    app: scalars.Name = key("Name of the app: a small letter, then small letters, digits and `-`.", "shop")
    artifact: ArtifactSection = key("What is built and shipped.", "{build: make dist, package: dist/}")
    services: dict[scalars.Name, ServiceSection] = key(
        "The parts of the app that run, by name.",
        "{web: {run: ./bin/web}}",
        min_length=1,
        max_length=SERVICES_MAX,
    )
    migrations: Migrations = key(
        "Scripts that change the database, each with its way back.",
        "migrations/",
        "{path: db/, database: SHOP_DATABASE}",
        default=None,
    )
    environments: Annotated[dict[scalars.Name, EnvironmentSection], BeforeValidator(widened_empty)] = key(
        "The pipeline, by name, in the order in which a release passes it. Not written: one, `production`.",
        "{test: {}, production: {}}",
        default={},
        max_length=ENVIRONMENTS_MAX,
    )
    analysis: Analysis = key(
        "How canaries are judged in all environments.", "{margin: 1.5}", "off", default={}
    )
    verify: Verify = key(
        "How a release is tried in every environment before the first user sees it.",
        "./bin/smoke",
        "{smoke: [/healthz]}",
        default=None,
    )
