"""What the API answers about the pipeline: stable names, documented here, as in `schemas`."""

from __future__ import annotations

from pydantic import Field

from tidegate.web.schemas import Answer, Environment, Plan


class Approval(Answer):
    """Somebody lets a release enter an environment."""

    environment: str = Field(description="Which it may enter.")
    by: str = Field(description="Proved name.")
    role: str = Field(description="Of the approver.")
    at: float = Field(description="Unix seconds.")


class Promotion(Answer):
    """A release on its way to a target environment."""

    id: int = Field(description="Its number in the app.")
    release: int = Field(description="That goes its way.")
    target: str = Field(description="Where it is to become live.")
    path: list[str] = Field(description="Environments that it passes, the target last.")
    environment: str = Field(description="Where it stands: in it, or before it.")
    rollout: int | None = Field(description="Its rollout there; None: not begun.")
    kind: str = Field(description="`deploy`; or `rollback`, of a group that goes back together.")
    after: list[str] = Field(description="Of a rollback: apps that must be home before it begins.")
    waits: str | None = Field(
        description="For `rollout`, `busy`, `needs`, `soak`, `approval` or `freeze`; None: for nothing."
    )
    detail: str = Field(description="The same for people; of an ended one: how it ended.")
    approvals: list[Approval] = Field(description="Given so far.")
    by: str = Field(description="Who asked.")
    why: str = Field(description="As given with `--why`.")
    at: float = Field(description="Unix seconds of the request.")
    ended: str | None = Field(
        description="`arrived`, `failed`, `superseded` or `withdrawn`; None: under way."
    )


class Station(Answer):
    """An environment in the pipeline of an app."""

    environment: str = Field(description="Its name.")
    live: int | None = Field(description="Release that is live; None: nothing is.")
    rollout: int | None = Field(description="In progress; None: none.")
    passed: bool = Field(description="What is live has passed it, and may enter the next one.")
    soaked_s: float = Field(description="How long the live release has been seen in order.")
    soak_s: float = Field(description="How long it has to be.")
    frozen: str = Field(description="Freeze window that is in force; empty: none is.")
    emergency: str = Field(description="Not empty: the live release came past the gates, and why.")


class Pipeline(Answer):
    """The environments of an app in their order, and what is on its way."""

    app: str = Field(description="Name of the app.")
    stations: list[Station] = Field(description="In the order of the newest release's manifest.")
    promotions: list[Promotion] = Field(description="Under way, oldest first.")
    ended: list[Promotion] = Field(description="Ended lately, newest first.")
    failure: str = Field(description="Not empty: why the pipeline cannot go on now.")


class GatePlan(Answer):
    """What a deploy would do at one environment."""

    environment: str = Field(description="Its name.")
    passed: bool = Field(description="It was passed already: the release goes through.")
    waits: list[str] = Field(description="For what, as things stand now.")
    plan: Plan | None = Field(description="Of the rollout; None: none would begin.")


class DeployPlan(Plan):
    """What a deploy would do: in the environment that was asked about, and at every gate before it."""

    gates: list[GatePlan] = Field(description="In the order of the pipeline.")


class GroupStep(Answer):
    """One app of a group that goes back together."""

    app: str = Field(description="Its name.")
    environment: str = Field(description="Of the same name for all of them.")
    live: int | None = Field(description="Release that is live now.")
    back_to: int = Field(description="Release that was live before it.")
    after: list[str] = Field(description="Apps that depend on it, and go back first.")
    promotion: Promotion | None = Field(description="That does it; None: it was only asked what would be.")


class Group(Answer):
    """A group that goes back together, in the order in which its apps do."""

    steps: list[GroupStep] = Field(description="Who depends on others first.")


class Accepted(Answer):
    """What became of a request."""

    no_op: bool = Field(description="Everything is as asked already.")
    rollout: int | None = Field(
        description="Acted upon; None if it waits for another to go home, or a no-op."
    )
    environment: Environment = Field(description="As it stands after the decision.")
    promotion: Promotion | None = Field(
        default=None, description="On its way through the pipeline; None: the gate was open."
    )
