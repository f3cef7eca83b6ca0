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
    status: int
    detail: str = Field(default="", description="What to do about it.")
    reason: str | None = Field(default=None, description="Of a refusal: its stable reason.")
    exit_status: int = Field(default=1, description="What `tide` exits with.")
    problems: list[str] = Field(default=[], description="Of a manifest: every mistake, with its path.")


class Instance(Answer):
    """One instance of a service."""

    index: int
    state: str
    ready: bool | None = Field(description="None: not asked yet.")
    pid: int | None
    port: int | None
    crashes: int
    exit: str = Field(description="How it ended last; empty if it never did.")


class Service(Answer):
    """One service of a placement."""

    name: str
    wanted: int
    ready: int
    serves: bool
    up: int | None = Field(description="Instances that the router would send requests to; None: unknown.")
    connections: int | None = Field(description="Open connections through the router; None: unknown.")
    instances: list[Instance]


class Traffic(Answer):
    """Users' requests answered by a placement, counted by the router."""

    requests: int
    errors: int = Field(description="Answers 5xx.")
    requests_per_second: float
    errors_per_second: float


class Placement(Answer):
    """A release in an environment, with its instances."""

    id: int
    release: int
    digest: str
    role: str = Field(description="incoming, live, standby or retiring.")
    slot: int
    exposure_bps: int = Field(description="Share of users that it answers, in basis points.")
    traffic: Traffic
    services: list[Service]


class Stage(Answer):
    """One step of a strategy."""

    exposure_bps: int
    hold_s: float | None = Field(description="None: until promoted.")


class Rollout(Answer):
    """Putting one release into one environment."""

    id: int
    kind: str
    release: int
    previous_release: int | None
    strategy: str
    stages: list[Stage]
    stage: int = Field(description="Index of the current stage.")
    phase: str
    held_s: float
    paused: bool
    exposure_reached_bps: int = Field(description="Largest exposure that was seen in force.")
    reason: str
    detail: str
    by: str
    why: str
    placement: int | None
    started_at: float | None = Field(default=None, description="Unix seconds.")
    ended_at: float | None = None


class Environment(Answer):
    """Everything about one environment now."""

    app: str
    environment: str
    live: int | None = Field(description="Release that is live.")
    exposure_bps: int = Field(description="Committed exposure of the incoming release.")
    rollout: Rollout | None = Field(description="In progress.")
    last: Rollout | None = Field(description="The one that ended last.")
    pending_release: int | None = Field(description="Starts when the current rollout has gone home.")
    placements: list[Placement]
    hosts: list[str]
    url: str | None = Field(description="Where the first public service answers on this machine.")
    halted: str = Field(description="Not empty: observe only, and why.")
    failures: list[str] = Field(description="What does not work right now, in sentences.")
    observed_at: float


class ControlPlane(Answer):
    """The control plane itself."""

    version: str
    home: str
    pid: int
    listen: str
    environments: list[Environment]


class Finding(Answer):
    """One result of a self-check."""

    name: str
    ok: bool
    detail: str
    hint: str


class Package(Answer):
    """A package in the content store."""

    digest: str
    size_bytes: int
    files: int


class Release(Answer):
    """A numbered release."""

    app: str
    number: int
    digest: str
    revision: str
    environments: list[str]
    created_at: float
    created_by: str
    kept: bool = Field(description="Its package is on this machine.")


class Accepted(Answer):
    """What became of a request."""

    no_op: bool = Field(description="Everything is as asked already.")
    rollout: int | None = Field(
        description="Acted upon; None if it waits for another to go home, or a no-op."
    )
    environment: Environment


class Plan(Answer):
    """What a deploy would do."""

    release: int
    previous_release: int | None
    no_op: bool
    flip: bool
    steps: list[str]


class Event(Answer):
    """One line of the history."""

    sequence: int
    at: float
    reason: str
    rollout: int | None
    release: int | None
    phase: str | None
    exposure_bps: int | None
    detail: str


class Preview(Answer):
    """How to see the incoming release before the users do."""

    header: str
    token: str
    cookie: str


class LogLine(Answer):
    """One line of output."""

    service: str
    release: int
    index: int
    text: str
