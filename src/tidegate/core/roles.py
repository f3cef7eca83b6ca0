"""Who may do what: roles, the scope of a token, and what each action needs. Pure.

Hides the order of the roles and how a pattern matches a name. Invariants: a role may do whatever the roles
before it may; an asker with a scope sees and changes nothing outside of it. Neighbours: `web.identity` proves
who asks and says which action a route is; the engine asks for actions that are no route of their own, as an
emergency.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tidegate import errors

#: Names of apps and environments, with `*` for any part of a name.
_PATTERN: Final = re.compile(r"[a-z0-9*-]{1,40}")
_TOKEN: Final = re.compile(r"tide_[A-Za-z0-9_-]{16,}")


class Role(enum.StrEnum):
    """What somebody may do: each role includes those before it."""

    VIEWER = "viewer"
    DEPLOYER = "deployer"
    APPROVER = "approver"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role may do what the other may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


class Action(enum.StrEnum):
    """What can be asked for; the words are those of the audit log."""

    LOOK = "look"
    PLAN = "plan"
    READ_AUDIT = "read audit"
    READ_LOGS = "read logs"
    PREVIEW = "preview"
    UPLOAD = "upload"
    ADD_RELEASE = "add release"
    DEPLOY = "deploy"
    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"
    MIGRATE = "migrate"
    APPROVE = "approve"
    EMERGENCY = "emergency"
    SECRETS = "secrets"
    SOURCES = "sources"
    TOKENS = "tokens"
    KEYS = "keys"
    BACKUP = "backup"
    SHUTDOWN = "shutdown"
    ON_BEHALF = "on behalf"


#: The least role for each action. What instances print may show customers' data and whatever an app lets
#: slip, and a preview opens a release that is not public: more than looking.
NEEDS: Final[Mapping[Action, Role]] = {
    Action.LOOK: Role.VIEWER,
    Action.PLAN: Role.VIEWER,
    Action.READ_AUDIT: Role.VIEWER,
    Action.READ_LOGS: Role.DEPLOYER,
    Action.PREVIEW: Role.DEPLOYER,
    Action.UPLOAD: Role.DEPLOYER,
    Action.ADD_RELEASE: Role.DEPLOYER,
    Action.DEPLOY: Role.DEPLOYER,
    Action.PROMOTE: Role.DEPLOYER,
    Action.PAUSE: Role.DEPLOYER,
    Action.RESUME: Role.DEPLOYER,
    Action.ABORT: Role.DEPLOYER,
    Action.ROLLBACK: Role.DEPLOYER,
    Action.MIGRATE: Role.DEPLOYER,
    Action.APPROVE: Role.APPROVER,
    Action.EMERGENCY: Role.ADMIN,
    Action.SECRETS: Role.ADMIN,
    Action.SOURCES: Role.ADMIN,
    Action.TOKENS: Role.ADMIN,
    Action.KEYS: Role.ADMIN,
    Action.BACKUP: Role.ADMIN,
    Action.SHUTDOWN: Role.ADMIN,
    Action.ON_BEHALF: Role.ADMIN,
}

#: Changes nothing: in the audit log only when refused.
LOOKING: Final = frozenset({Action.LOOK, Action.PLAN, Action.READ_AUDIT, Action.READ_LOGS, Action.PREVIEW})
#: Going home needs no gate: these work even when nothing more can be written down.
ALWAYS: Final = frozenset({Action.ABORT, Action.ROLLBACK})


@dataclass(frozen=True, slots=True)
class Reach:
    """Environments of apps, by a pattern of each name."""

    app: str
    environment: str

    def __str__(self) -> str:
        return f"{self.app}/{self.environment}"

    def covers(self, app: str, environment: str | None = None) -> bool:
        """Whether the environment is meant; None: whether any of the app's may be."""
        return _matches(self.app, app) and (environment is None or _matches(self.environment, environment))


ANYWHERE: Final = Reach("*", "*")


def reach(text: str) -> Reach:
    """`shop/production`, `shop/*`, `*/staging`. Raises RequestError."""
    app, slash, environment = text.partition("/")
    if not slash or not _PATTERN.fullmatch(app) or not _PATTERN.fullmatch(environment):
        raise errors.RequestError(
            f"{text!r} does not name environments.",
            hint="Write APP/ENV; * stands for any part of a name, as in 'shop/*' or '*/staging'.",
        )
    return Reach(app, environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Somebody whose name is proved, and what they may do."""

    name: str
    """Of the user of this machine, or of the token."""
    role: Role
    scope: tuple[Reach, ...] = (ANYWHERE,)
    token_id: int | None = None
    """None: a user of this machine."""
    on_behalf_of: str = ""
    """Whom an admin speaks for: only a text. Two texts are not two people: compare `name`."""

    @property
    def by(self) -> str:
        """As history and audit log show it."""
        return f"{self.name} for {self.on_behalf_of}" if self.on_behalf_of else self.name

    @property
    def everywhere(self) -> bool:
        """Not limited to some environments."""
        return ANYWHERE in self.scope

    def reaches(self, app: str, environment: str | None = None) -> bool:
        """Whether it is in scope; with no environment: whether any of the app's may be."""
        return any(part.covers(app, environment) for part in self.scope)

    def demand_role(self, action: Action) -> None:
        """Go on only if this asker may do that somewhere. Raises ForbiddenError, saying what is needed."""
        needed = NEEDS[action]
        if not self.role.includes(needed):
            raise errors.ForbiddenError(
                f"{self.name} may not {said(action)}: that needs the role {needed}, "
                f"and this is the role {self.role}.",
                hint="Ask an admin for a token with that role: `tide token create`.",
            )

    def demand(self, action: Action, app: str | None = None, environment: str | None = None) -> None:
        """Go on only if this asker may do that there; with no app: to the whole control plane.

        Raises ForbiddenError, which says what is needed.
        """
        self.demand_role(action)
        if self.everywhere if app is None else self.reaches(app, environment):
            return
        place = "/".join(part for part in (app, environment) if part)
        where = f"for {place}" if place else "for every environment"
        raise errors.ForbiddenError(
            f"{self.name} may not {said(action)} there: that needs the role {NEEDS[action]} {where}.",
            hint=f"This token is for {', '.join(str(part) for part in self.scope)}.",
        )


#: What the control plane does by itself.
TIDEGATE: Final = Asker(name="tidegate", role=Role.ADMIN)

_SAID: Final[Mapping[Action, str]] = {
    Action.LOOK: "look at that",
    Action.PLAN: "see what a deploy would do",
    Action.READ_AUDIT: "read the audit log",
    Action.READ_LOGS: "read what instances print",
    Action.PREVIEW: "see a release before the users do",
    Action.UPLOAD: "upload packages",
    Action.ADD_RELEASE: "add releases",
    Action.ROLLBACK: "roll back",
    Action.EMERGENCY: "get around the gate",
    Action.SECRETS: "change secrets",
    Action.SOURCES: "change sources",
    Action.TOKENS: "handle tokens",
    Action.KEYS: "handle keys",
    Action.BACKUP: "write backups",
    Action.SHUTDOWN: "stop the control plane",
    Action.ON_BEHALF: "speak for somebody else",
}


def said(action: Action) -> str:
    """The action as a verb, for a sentence."""
    return _SAID.get(action, action.value)


def redacted(text: str) -> str:
    """The text with every token replaced: nobody who reads it can use one."""
    return _TOKEN.sub("tide_***", text)


def _matches(pattern: str, name: str) -> bool:
    """In linear time, whatever the pattern: `*` stands for any characters, also for none."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
