"""Every exception that Tidegate raises on purpose, as one tree.

    TidegateError
    ├── RequestError                 the caller's fault; nothing was changed (exit status 2)
    │   ├── ListedError              several things are wrong: all problems at once
    │   │   ├── ManifestError        of tidegate.yaml, each with its path in it
    │   │   └── MigrationError       of the migrations of an artifact, each with its file
    │   ├── ArtifactError            the package cannot be accepted
    │   ├── BuildError               the build command failed
    │   ├── UnauthenticatedError     nobody knows who asks
    │   ├── ForbiddenError           who asks may not do that, or not there
    │   ├── NotFoundError            no such app, environment, release or rollout
    │   ├── RefusedError             understood, and refused: with the reason
    │   └── SchemaError              the database of an app is not as it has to be; nothing of it was changed
    ├── MachineError                 this machine's fault: disk, ports, programs (exit status 1)
    │   ├── StorageError             disk full, not writable, not readable
    │   ├── PortTakenError           somebody else listens there
    │   ├── MissingProgramError      a program that is needed is not there
    │   ├── SealError                what is stored is not what was signed or sealed: nothing runs from it
    │   └── AuditError               the audit log cannot be written: no change without an entry
    ├── ReportedError                what another process of Tidegate reported, with its own exit status
    ├── UnreachableError             the control plane does not answer (exit status 1)
    ├── AdapterError                 a runtime or router did not do what was asked; tried again by the loop
    │   ├── RuntimeAdapterError
    │   ├── SourceError              git, or the server of a remote repository
    │   ├── DatabaseError            the database of an app refused or failed; nothing of the script stays
    │   │   ├── BusyDatabaseError    a lock was not to be had in time: try again
    │   │   └── LostDatabaseError    the connection ended; what was open is rolled back
    │   ├── MigratorError            the process that works on a database cannot be started, or not be seen
    │   └── RouterError
    │       └── StaleRouteError      a newer route is in force; the command was too late
    └── StoreError                   the state store refused
        ├── LeaseHeldError           another control plane owns the store
        ├── FencedError              our lease is over: stop at once
        ├── ConflictError            somebody committed first: load again
        └── NewerStateError          written by a newer Tidegate than this one

A class's docstring is its default message. The type says whose fault it is: `exit_status` and
`http_status` follow from it, so that no caller decides them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class TidegateError(Exception):
    """Tidegate could not do that."""

    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """`message` says what happened, `hint` what to do about it."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message if hint is None else f"{self.message} {hint}")

    @property
    def kind(self) -> str:
        """Stable name of the error for machines, e.g. `refused`."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


class RequestError(TidegateError):
    """The request was wrong; nothing was changed."""

    exit_status = 2
    http_status = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest: where it is, what is wrong, what would be right."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class ListedError(RequestError):
    """Several things are wrong."""

    http_status = 422
    where: ClassVar[str] = "The request"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """`problems`: all of them, in the order in which they are to be read."""
        self.problems = problems
        count = len(problems)
        heading = f"{self.where} has {count} mistake{'s' if count != 1 else ''}:"
        super().__init__("\n".join([heading, *(f"  {problem}" for problem in problems)]))


class ManifestError(ListedError):
    """tidegate.yaml is not valid."""

    where = "tidegate.yaml"


class MigrationError(ListedError):
    """The migrations are not valid."""

    where = "The folder of migrations"


class ArtifactError(RequestError):
    """The package was refused."""

    http_status = 422


class BuildError(RequestError):
    """The build command failed."""

    exit_status = 1
    http_status = 422


class UnauthenticatedError(RequestError):
    """The request does not prove who asks."""

    http_status = 401


class ForbiddenError(RequestError):
    """Who asks may not do that."""

    http_status = 403


class NotFoundError(RequestError):
    """There is no such thing."""

    http_status = 404


class RefusedError(RequestError):
    """The request was refused; nothing was changed."""

    http_status = 409

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        """`reason`: value of a `core.model.Refusal`, for machines."""
        self.reason = reason
        super().__init__(message, hint=hint)


class SchemaError(RequestError):
    """The database is not as it has to be for that."""

    http_status = 409


class MachineError(TidegateError):
    """This machine cannot do that now."""

    http_status = 503


class StorageError(MachineError):
    """The data folder cannot be read or written."""

    http_status = 507


class PortTakenError(MachineError):
    """Another program listens on that port."""


class MissingProgramError(MachineError):
    """A program that is needed is not installed."""


class SealError(MachineError):
    """A statement does not match its signature: somebody changed the database."""

    http_status = 500


class AuditError(MachineError):
    """The audit log cannot be written, so nothing was changed."""


class ReportedError(TidegateError):
    """Another process of Tidegate reported an error."""

    def __init__(self, reported: Mapping[str, Any]) -> None:
        """`reported`: what `problem` gave there; unknown members are kept, missing ones are harmless."""
        self.reported = dict(reported)
        super().__init__(
            str(reported.get("title") or "") or None, hint=str(reported.get("detail") or "") or None
        )


class UnreachableError(TidegateError):
    """The control plane does not answer: start it with `tide up`."""

    http_status = 503


class AdapterError(TidegateError):
    """A runtime or router did not do what was asked."""

    http_status = 502


class RuntimeAdapterError(AdapterError):
    """The runtime did not do what was asked."""


class SourceError(AdapterError):
    """A repository could not be read or written."""


class DatabaseError(AdapterError):
    """The database refused that."""


class BusyDatabaseError(DatabaseError):
    """Somebody else holds a lock on it."""


class LostDatabaseError(DatabaseError):
    """The connection to the database ended."""


class MigratorError(AdapterError):
    """A migration could not be begun, or nobody knows what became of it."""


class RouterError(AdapterError):
    """HAProxy did not do what was asked."""


class StaleRouteError(RouterError):
    """A newer route is in force; this command came too late and changed nothing."""


class StoreError(TidegateError):
    """The state store refused."""

    http_status = 503


class LeaseHeldError(StoreError):
    """Another control plane uses this data folder."""

    http_status = 409


class FencedError(StoreError):
    """The lease on the state is over: another control plane has taken over, this one must stop."""


class ConflictError(StoreError):
    """The state changed in the meantime; load it again."""

    http_status = 409


class NewerStateError(StoreError):
    """The state was written by a newer Tidegate; upgrade this one. Nothing was touched."""


def problem(error: TidegateError) -> dict[str, Any]:
    """An error for machines: the members of a problem object (RFC 9457), as API and `--json` show it."""
    if isinstance(error, ReportedError):
        return {"title": error.message, "detail": error.hint or "", "exit_status": 1, **error.reported}
    return {
        "type": error.kind,
        "title": error.message,
        "status": error.http_status,
        "detail": error.hint or "",
        "reason": error.reason if isinstance(error, RefusedError) else None,
        "exit_status": error.exit_status,
        "problems": [str(found) for found in error.problems] if isinstance(error, ListedError) else [],
    }
