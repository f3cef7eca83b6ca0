"""What the API answers: stable names, documented here and published as OpenAPI.

Additions are allowed, renamings are not: `--json` prints these objects unchanged.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Answer):
    """An error, as in RFC 9457 (problem details)."""

    type: str = Field(description="Stable name of the error, e.g. `refused`.")
    title: str = Field(description="What happened.")
    status: int = Field(description="HTTP status of the answer.")
    detail: str = Field(default="", description="What to do about it.")
    reason: str | None = Field(default=None, description="Of a refusal: its stable reason.")
    exit_status: int = Field(default=1, description="What `tide` exits with.")
    problems: list[str] = Field(default=[], description="Of a manifest: every mistake, with its path.")


class Instance(Answer):
    """One instance of a service."""

    index: int = Field(description="0 for the first.")
    state: str = Field(
        description="`starting`, `running`, `backoff` (waits to start again), `stopping`, `exited`."
    )
    ready: bool | None = Field(description="None: not asked yet.")
    pid: int | None = Field(description="Of the app; None: it does not run.")
    port: int | None = Field(description="Where it listens; None: a worker.")
    crashes: int = Field(description="How often it ended unasked since it was created.")
    exit: str = Field(description="How it ended last; empty if it never did.")
    check: str = Field(
        description="What its check said last, e.g. `GET /missing answered 404`; empty: nothing yet."
    )


class Service(Answer):
    """One service of a placement."""

    name: str = Field(description="As in tidegate.yaml.")
    wanted: int = Field(description="Instances that should run.")
    ready: int = Field(description="Instances that passed their health check.")
    serves: bool = Field(description="Has a port and takes requests; false: a worker.")
    up: int | None = Field(description="Instances that the router would send requests to; None: unknown.")
    connections: int | None = Field(description="Open connections through the router; None: unknown.")
    instances: list[Instance] = Field(description="Each of them.")


class Traffic(Answer):
    """Users' requests answered by a placement, counted by the router."""

    requests: int = Field(description="Since the control plane began to count.")
    errors: int = Field(description="Answers 5xx.")
    requests_per_second: float = Field(description="In the last seconds.")
    errors_per_second: float = Field(description="In the last seconds.")


class Placement(Answer):
    """A release in an environment, with its instances."""

    id: int = Field(description="Never used again.")
    release: int = Field(description="Number, without the r.")
    digest: str = Field(description="Of the package.")
    role: str = Field(description="incoming, live, standby or retiring.")
    slot: int = Field(description="0 to 3: which of the four sets of backends in the router.")
    exposure_bps: int = Field(description="Share of users that it answers, in basis points.")
    traffic: Traffic = Field(description="What it answered.")
    services: list[Service] = Field(description="In dependency order.")


class Stage(Answer):
    """One step of a strategy."""

    exposure_bps: int = Field(description="Share of users, in basis points: 10 000 is everybody.")
    hold_s: float | None = Field(description="None: until promoted.")


class Compared(Answer):
    """What one of the two releases answered while both were compared."""

    requests: int = Field(description="Users' requests that are in the evidence.")
    errors: int = Field(description="Of them: answers 5xx.")
    share: float = Field(description="Share of errors, 0 to 1; 0 if there was no request.")
    low: float = Field(description="Of its 95 % interval, for people: nothing is decided by it.")
    high: float = Field(description="The same.")
    p50_ms: float | None = Field(
        description="Median time to the first byte of late, in steps of 5 %; None: not measured."
    )
    p99_ms: float | None = Field(description="Its 99th percentile; None: not measured.")


class MetricEvidence(Answer):
    """What one metric says against a canary."""

    metric: str = Field(description="E.g. `errors`, `latency`, or a limit: `error-limit`, `latency-limit`.")
    log_evidence: float = Field(description="Its part of `combined`, as a natural logarithm.")


class Evidence(Answer):
    """What the traffic has shown of a canary. Logarithms are natural: `exp(combined)` to 1 are the odds."""

    verdict: str = Field(description="`abort`, `promote` (shown to be no worse) or `continue`.")
    finding: str = Field(description="Why, as a stable word, e.g. `more-errors`, `gathering-evidence`.")
    metric: str | None = Field(description="To blame for an abort.")
    sentence: str = Field(description="The same for people.")
    combined: float = Field(description="Log evidence of harm, all metrics together…")
    abort_bound: float = Field(description="…which aborts from here.")
    no_worse: float = Field(description="Log evidence that the canary fails no more requests…")
    promote_bound: float = Field(description="…which is enough from here.")
    metrics: list[MetricEvidence] = Field(description="What each metric adds to `combined`.")
    canary: Compared = Field(description="The incoming release.")
    stable: Compared = Field(description="The live release, in the same time.")
    waits: bool = Field(description="The stage's hold time is over, and more evidence is waited for.")


class Rollout(Answer):
    """Putting one release into one environment."""

    id: int = Field(description="Its number in the environment.")
    kind: str = Field(description="`deploy` or `rollback`.")
    release: int = Field(description="That goes in.")
    previous_release: int | None = Field(description="That was live when it began; None: nothing was.")
    strategy: str = Field(description="`switch` or `canary`.")
    stages: list[Stage] = Field(description="Steps of the strategy.")
    stage: int = Field(description="Index of the current stage.")
    phase: str = Field(description="See [the life of a rollout](lifecycle.md).")
    held_s: float = Field(description="Of the current stage: how long it was seen healthy, in seconds.")
    paused: bool = Field(description="Somebody paused it.")
    exposure_reached_bps: int = Field(description="Largest exposure that was seen in force.")
    reason: str = Field(description="Of its last step: see [reasons](reasons.md).")
    detail: str = Field(description="The same for people.")
    by: str = Field(description="Who asked.")
    why: str = Field(description="As given with `--why`.")
    placement: int | None = Field(description="Id of the instances that it is about; None: not placed yet.")
    started_at: float | None = Field(default=None, description="Unix seconds.")
    ended_at: float | None = Field(default=None, description="Unix seconds; None: in progress.")
    evidence: Evidence | None = Field(
        default=None,
        description="What a canary's traffic shows, or had shown when the rollout ended; None: nobody was "
        "exposed, or there was nothing to compare with.",
    )


class Environment(Answer):
    """Everything about one environment now."""

    app: str = Field(description="Name of the app.")
    environment: str = Field(description="Name of the environment.")
    live: int | None = Field(description="Release that is live.")
    exposure_bps: int = Field(description="Committed exposure of the incoming release.")
    rollout: Rollout | None = Field(description="In progress.")
    last: Rollout | None = Field(description="The one that ended last.")
    pending_release: int | None = Field(description="Starts when the current rollout has gone home.")
    migrating: str = Field(description="What is done to the database, or waited for; empty: nothing.")
    placements: list[Placement] = Field(
        description="Everything that runs here, also what is kept warm or on its way out."
    )
    hosts: list[str] = Field(description="Host names that it answers to.")
    url: str | None = Field(
        description="Where it answers, by the first of `hosts`, or by the router's own address if it answers "
        "every host; None: it has no host."
    )
    halted: str = Field(description="Not empty: observe only, and why.")
    emergency: str = Field(
        default="", description="Not empty: the live release came past the gates of the pipeline, and why."
    )
    failures: list[str] = Field(description="What does not work right now, in sentences.")
    observed_at: float = Field(description="Unix seconds of the last look; 0: none yet.")
    noise: str = Field(
        default="",
        description="What replaying the live release's last day against itself found, once an hour; it says "
        "how much the next canary's evidence may count. Empty: too little history.",
    )


class ControlPlane(Answer):
    """The control plane itself."""

    version: str = Field(description="Of Tidegate.")
    home: str = Field(description="Its data folder.")
    pid: int = Field(description="Its process.")
    listen: str = Field(description="Where users' requests arrive.")
    environments: list[Environment] = Field(description="All of them.")


class Finding(Answer):
    """One result of a self-check."""

    name: str = Field(description="What was checked.")
    ok: bool = Field(description="Nothing needs to be done.")
    detail: str = Field(description="What was found.")
    hint: str = Field(description="What to do; may be filled though `ok`.")


class Backup(Answer):
    """A copy of the state: releases, environments, rollouts and their history."""

    file: str = Field(description="Where it was written, for its owner's eyes only: it holds configuration.")
    size_bytes: int = Field(description="Of the file.")


class Package(Answer):
    """A package in the content store."""

    digest: str = Field(description="Its identity.")
    size_bytes: int = Field(description="Unpacked.")
    files: int = Field(description="Regular files in it.")


class Release(Answer):
    """A numbered release."""

    app: str = Field(description="Name of the app.")
    number: int = Field(description="Without the r.")
    digest: str = Field(description="Of its package.")
    revision: str = Field(
        description="Commit of the source, with `-dirty` if it was changed; empty: not from git."
    )
    environments: list[str] = Field(description="That its tidegate.yaml names, in order.")
    created_at: float = Field(description="Unix seconds.")
    created_by: str = Field(description="Who made it.")
    kept: bool = Field(description="Its package is on this machine.")


class Plan(Answer):
    """What a deploy would do."""

    release: int = Field(description="That would go in.")
    previous_release: int | None = Field(description="That is live; None: nothing is.")
    no_op: bool = Field(description="It is live already, with the same configuration.")
    flip: bool = Field(description="Its instances are warm: nothing has to start.")
    steps: list[str] = Field(description="In order, for people.")
    judged: str = Field(default="", description="How the canary will be judged; empty: it is no canary.")


class Event(Answer):
    """One line of the history."""

    sequence: int = Field(description="Grows; ask for events after one.")
    at: float = Field(description="Unix seconds.")
    reason: str = Field(description="See [reasons](reasons.md).")
    rollout: int | None = Field(description="Id of its rollout; None: of no rollout.")
    release: int | None = Field(description="That it is about.")
    phase: str | None = Field(description="Of the rollout, after it.")
    exposure_bps: int | None = Field(description="That was committed with it.")
    detail: str = Field(description="For people.")


class Preview(Answer):
    """How to see the incoming release before the users do."""

    header: str = Field(description="Name of the header to send.")
    token: str = Field(description="Its value, and that of the cookie.")
    cookie: str = Field(description="Name of the cookie, instead of the header.")
    address: str | None = Field(
        description="URL of the router on this machine; None: nothing is public here."
    )
    host: str | None = Field(description="To send as `Host` to that address; None: any will do.")


class LogLine(Answer):
    """One line of output."""

    service: str = Field(description="That printed it.")
    release: int = Field(description="Number, without the r.")
    index: int = Field(description="Of the instance.")
    text: str = Field(description="The line.")


class Side(Answer):
    """What one of the two compared releases answered in the time of a point."""

    requests: int = Field(description="Users' requests.")
    errors: int = Field(description="Answers 5xx.")
    p50_ms: float | None = Field(description="Median time to the first byte; None: nothing was measured.")
    p99_ms: float | None = Field(description="Its 99th percentile; None: nothing was measured.")


class Point(Answer):
    """A moment of a canary: what both releases answered, and what the evidence said then.

    One a second; of a long rollout neighbours are put together, so that there are at most 1 200. Counts of
    all points add up to those of the whole rollout.
    """

    at: float = Field(description="Unix seconds at which it begins; it lasts until the next one.")
    exposure_bps: int = Field(description="Share of users that the canary was given at its end.")
    canary: Side = Field(description="The incoming release.")
    stable: Side = Field(description="The live release.")
    combined: float = Field(description="Log evidence of harm, all metrics together, at its end.")
    abort_bound: float = Field(description="Log evidence of harm that aborts.")
    no_worse: float = Field(description="Log evidence that the canary fails no more requests, at its end.")
    promote_bound: float = Field(description="Log evidence of no harm that is enough to promote early.")


class SeriesRow(Answer):
    """What one public service of a placement answered in a stretch of time; quiet stretches are left out."""

    at: int = Field(description="Unix seconds at which it begins.")
    step_s: int = Field(description="How long it is.")
    placement: int = Field(description="Id of the instances that answered.")
    release: int = Field(description="Number, without the r.")
    service: str = Field(description="As in tidegate.yaml.")
    requests: int = Field(description="Users' requests.")
    errors: int = Field(description="Answers 5xx.")
    classes: list[int] = Field(description="Answers 1xx, 2xx, 3xx, 4xx and 5xx.")
    connect_failures: int = Field(description="Connections to instances that failed.")
    unanswered: int = Field(description="Requests without a whole answer in time.")
    bytes_in: int = Field(description="From users.")
    bytes_out: int = Field(description="To users.")
    active: int = Field(description="Most requests and connections under way that were seen at once.")
    p50_ms: float | None = Field(description="Median time to the first byte; None: nothing was measured.")
    p90_ms: float | None = Field(description="Its 90th percentile; None: nothing was measured.")
    p99_ms: float | None = Field(description="Its 99th percentile; None: nothing was measured.")


class Token(Answer):
    """What a token allows; its text is shown once, when it is made."""

    id: int = Field(description="Number: no other token ever has it.")
    name: str = Field(description="As history and audit log show it.")
    role: str = Field(description="`viewer`, `deployer`, `approver` or `admin`.")
    environments: list[str] = Field(description="Where: patterns APP/ENV.")
    created_at: float = Field(description="Unix seconds.")
    created_by: str = Field(description="Who made it.")
    expires_at: float | None = Field(description="Unix seconds; None: never.")
    used_at: float | None = Field(description="Unix seconds of the last use, to the hour; None: never used.")
    revoked_at: float | None = Field(description="Unix seconds; None: it is not revoked.")
    revoked_by: str = Field(description="Who revoked it.")


class NewToken(Answer):
    """A token that was made: the only time that its text is shown."""

    token: str = Field(description="Its text, for TIDEGATE_TOKEN.")
    about: Token = Field(description="What it allows.")


class AuditEntry(Answer):
    """Who did what, or tried to, or what the control plane found."""

    sequence: int = Field(description="Number: 1 is the first, and none is left out in the log itself.")
    at: float = Field(description="Unix seconds.")
    by: str = Field(description="Proved name of a user of the machine or of a token; empty: nobody knows.")
    role: str = Field(description="Of who asked; empty: none was proved.")
    token: int | None = Field(description="Id of the token that was used.")
    action: str = Field(description="What was asked for, e.g. `deploy`.")
    app: str = Field(description="Empty: of no app.")
    environment: str = Field(description="Empty: of no environment.")
    release: int | None = Field(description="Number, without the r.")
    outcome: str = Field(
        description="`accepted`, `refused`, `found` (by the control plane itself), or `asked`: let in, and "
        "nobody wrote down how it ended."
    )
    reason: str = Field(description="Of a refusal: its stable name.")
    detail: str = Field(description="A sentence.")


class AuditFault(Answer):
    """Rows of the audit log that are not as they were written."""

    first: int = Field(description="Number of the first row.")
    last: int = Field(description="Number of the last row.")
    what: str = Field(
        description="`changed`, `missing`, `moved`, `cut` (from the end), `checkpoint` (it does not fit), or "
        "`noted` (the control plane found it before)."
    )
    detail: str = Field(description="A sentence.")


class AuditProof(Answer):
    """What walking along the audit log has found."""

    ok: bool = Field(description="Every row is as it was written, and none is missing.")
    count: int = Field(description="Rows.")
    head: str = Field(description="Code of the last row: with the count, a checkpoint to keep elsewhere.")
    faults: list[AuditFault] = Field(description="Empty: all is well.")


class StatusReport(Answer):
    """Where the state of a commit is reported to."""

    forge: str = Field(description="`github`, `gitlab` or `gitea`.")
    url: str = Field(description="Of its API.")
    project: str = Field(description="`owner/name`.")
    token_file: str = Field(description="Where its token is read; the token itself is never shown.")


class Source(Answer):
    """Where the releases of an app come from."""

    app: str = Field(description="Name of the app.")
    repository: str = Field(description="Tidegate's own repository: what `git push` is given.")
    branches: list[str] = Field(description="Patterns of branches that are built.")
    tags: list[str] = Field(description="Patterns of tags that are built.")
    to: str = Field(description="Environment that releases go to; empty: the last of the commit's manifest.")
    on_push: str = Field(description="`queue` or `supersede`: what becomes of older pushes.")
    manifest: str = Field(description="Path of the manifest in the repository.")
    time_limit_s: float = Field(description="Of a build.")
    remote: str = Field(description="Repository that is watched; empty: commits are pushed.")
    credentials: str = Field(description="File with the credentials of the remote; empty: none.")
    poll_s: float | None = Field(description="How often the remote is looked at; None: not by itself.")
    hook: str | None = Field(description="Whose webhooks are believed: `github`, `gitlab`, `gitea`; or None.")
    hook_path: str | None = Field(description="Where webhooks are sent to, below the hooks' own address.")
    hook_secret: str | None = Field(
        default=None, description="Secret of the webhooks; only in the answer that made it."
    )
    report: StatusReport | None = Field(description="Where commits' states are reported to; None: nowhere.")
    trouble: str = Field(description="Why the last look at the remote failed; empty: it did not.")
    added_at: float = Field(description="When it was added, or changed last.")
    added_by: str = Field(description="By whom.")


class Push(Answer):
    """One commit of a branch or tag on its way to be a release."""

    id: int = Field(description="Its number: `#12` is 12.")
    app: str = Field(description="Name of the app.")
    ref: str = Field(description="For example `refs/heads/main`.")
    revision: str = Field(description="The commit.")
    to: str = Field(description="Environment that it goes to; empty: the last of its manifest.")
    state: str = Field(description="`queued`, `building`, `released`, `failed` or `superseded`.")
    by: str = Field(description="Who pushed; empty: nobody who is known here.")
    how: str = Field(description="`push`, `webhook`, `poll` or `asked`.")
    delivery: str = Field(description="Id of the webhook; empty: there was none.")
    queued_at: float = Field(description="When it was taken.")
    started_at: float | None = Field(description="When its build began last; None: not yet.")
    ended_at: float | None = Field(description="When it was released, failed or superseded; None: not yet.")
    attempt: int = Field(description="How often its build was begun.")
    release: int | None = Field(description="Number of the release that it became; None: none yet.")
    promotion: str | None = Field(description="What was begun with the release; None: it waits for that.")
    detail: str = Field(description="Why it failed, or what superseded it.")


class PushLine(Answer):
    """A line of what the build of a push printed."""

    attempt: int = Field(description="Of the build: a control plane that was killed builds again.")
    number: int = Field(description="1 is the first line of the attempt.")
    text: str = Field(description="Without control characters.")


class Received(Answer):
    """What became of a ref that was pushed."""

    meant: bool = Field(description="Commits of this ref are built.")
    push: Push | None = Field(description="What was queued; None: nothing, or it was known already.")


class SecretUser(Answer):
    """A release that runs with a version of a secret."""

    release: int = Field(description="Number, without the r.")
    role: str = Field(description="live, incoming, standby or retiring.")
    version: int = Field(description="Of the secret.")


class SecretVersion(Answer):
    """One version of a secret, without its value."""

    version: int = Field(description="From 1; never given again.")
    at: float = Field(description="When it was set, in Unix seconds.")
    by: str = Field(description="Who set it.")


class Secret(Answer):
    """A secret of an environment, without its values."""

    name: str = Field(description="Of the variable.")
    versions: list[SecretVersion] = Field(description="Oldest first; the last is what the next deploy gets.")
    users: list[SecretUser] = Field(description="What runs with it now.")


class SecretChange(Answer):
    """What became of a secret that was set or removed."""

    name: str = Field(description="Of the variable.")
    version: int | None = Field(description="That was set; None: all were removed.")
    outdated: list[SecretUser] = Field(description="What goes on with another version until it is deployed.")
    redacted: bool = Field(description="It is long enough to be found and hidden in what is shown.")


class SecretsSealed(Answer):
    """An environment's secrets were sealed with a new key."""

    versions: int = Field(description="How many values that were.")


class Variable(Answer):
    """One variable of an environment's configuration."""

    name: str = Field(description="Of the variable.")
    value: str = Field(description="Its value.")


class SecretUsed(Answer):
    """A secret that a release is given."""

    name: str = Field(description="Of the variable.")
    version: int | None = Field(description="That it runs with, or would be given; None: it is not set.")
    as_file: bool = Field(description="Its value is in a file, whose path is in `NAME_FILE`.")


class Configuration(Answer):
    """What a release is configured with in an environment."""

    environment: str = Field(description="Its name.")
    release: int = Field(description="Number, without the r.")
    live: bool = Field(description="It is what runs there; false: what would, if that release were deployed.")
    config: list[Variable] = Field(description="Sorted by name.")
    secrets: list[SecretUsed] = Field(description="Sorted by name.")


class Key(Answer):
    """A public key that proves statements."""

    id: str = Field(description="SHA-256 of the key, as hexadecimal digits.")
    name: str = Field(description="`own`, or what it is trusted as.")
    own: bool = Field(description="Of this control plane.")
    in_use: bool = Field(description="New statements are signed with it.")
    pem: str = Field(description="The key itself, to be trusted elsewhere.")


class Proof(Answer):
    """What can be proved of a release."""

    release: int = Field(description="Number, without the r.")
    ok: bool = Field(description="All of it is well.")
    findings: list[Finding] = Field(description="Each point.")
