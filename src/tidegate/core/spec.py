"""Rules on the desired state that look at more than one value of it.

Hides how services depend on each other and what follows from that: who has a port, in which order
services start, which host belongs to whom, which names the environment of an instance may not use.

Invariants: every rule names *all* faults that it sees, in the order in which the user wrote things; a rule
never fails on input that another rule will complain about. Messages speak of the file, not of the code.

Neighbours: `manifest` reads the file, asks these rules and adds line numbers; `reconcile` uses the order
of services and the names of links. What is wrong with one value alone is found in `manifest`.
"""

from __future__ import annotations

import difflib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.core.model import FULL_EXPOSURE, CheckKind

#: Names of environments that get a canary when nothing is said, wherever they stand in the pipeline:
#: somebody who appends a `demo` environment must not turn production into a hard switch.
PRODUCTION_NAMES: Final = frozenset({"production", "prod"})

#: Host name that answers for every host that nobody else has.
CATCH_ALL: Final = "*"

_SUGGESTION_LENGTH_MAX = 60  # of a word: comparing costs its square, and no key is that long
_CYCLE_NAMES_MAX = 10  # shown of a circle; a longer one is cut, or the message fills the screen

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with the desired state."""

    where: Where
    """Keys from the top of the file, list positions as numbers from 0."""
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredService:
    """What a user said of one service, as far as it touches others."""

    name: str
    needs: tuple[str, ...] = ()
    """Of the same app."""
    foreign: tuple[str, ...] = ()
    """Of other apps, as `app/service`."""
    routed: bool = False
    """Has a host name in at least one environment."""
    port: bool | None = None
    """As written; None: not written."""
    checks: tuple[CheckKind, ...] = ()
    """All kinds of check that were written; more than one is a fault."""

    @property
    def asked_over_network(self) -> bool:
        return CheckKind.HTTP in self.checks or CheckKind.TCP in self.checks


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClaim:
    """One service in one environment wants one host."""

    environment: str
    service: str
    host: str
    where: Where
    """The list of hosts that holds it."""
    own: bool
    """Written for this environment; False: taken over from the service."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing."""
    if len(word) > _SUGGESTION_LENGTH_MAX:
        return ""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def link_variable(service: str) -> str:
    """Variable in which a service finds the address of a service that it needs, e.g. `USER_API_URL`.

    Of another app's service, `accounts/api`: `ACCOUNTS_API_URL`.
    """
    return f"{service.upper().replace('-', '_').replace('/', '_')}_URL"


def needed_names(services: Iterable[DeclaredService]) -> frozenset[str]:
    """Names of the services that some other service needs."""
    return frozenset(name for service in services for name in service.needs if name != service.name)


def addressed_names(services: Iterable[DeclaredService]) -> frozenset[str]:
    """The same, and the services of other apps: all whose address Tidegate sets."""
    known = tuple(services)
    return needed_names(known) | {name for service in known for name in service.foreign}


def serves(service: DeclaredService, needed: frozenset[str]) -> bool:
    """Whether the service gets a port: as written, else if anybody can have a reason to call it."""
    if service.port is not None:
        return service.port
    return service.routed or service.asked_over_network or service.name in needed


def check_kind(service: DeclaredService, needed: frozenset[str]) -> CheckKind:
    """As written; else what can be seen from outside: its port answers, or the process stays alive."""
    if service.checks:
        return service.checks[0]
    return CheckKind.TCP if serves(service, needed) else CheckKind.ALIVE


def canary_by_default(environment: str, *, last: bool) -> bool:
    """Whether an environment without a strategy gets a canary: where users are, at the pipeline's end."""
    return last or environment in PRODUCTION_NAMES


# --- services ------------------------------------------------------------------------------------


def service_faults(services: Sequence[DeclaredService], known: frozenset[str]) -> Iterator[Fault]:
    """All that is wrong between services. `known`: every name that was written, unusable ones included."""
    by_name = {service.name: service for service in services}
    for service in services:
        yield from _health_faults(service)
        yield from _need_faults(service, by_name, known)
        yield from _port_faults(service)
    for circle in cycles({service.name: service.needs for service in services}):
        yield _circle_fault(circle)


def _health_faults(service: DeclaredService) -> Iterator[Fault]:
    if len(service.checks) > 1:
        yield Fault(
            where=("services", service.name, "health"),
            message="should say one of path, tcp and command, not several",
            hint="keep the one that tells best whether the service can work",
        )


def _need_faults(
    service: DeclaredService, by_name: Mapping[str, DeclaredService], known: frozenset[str]
) -> Iterator[Fault]:
    where = ("services", service.name, "needs")
    for name in service.needs:
        if name == service.name:
            yield Fault(where=where, message=f"{name} needs itself", hint="remove it")
        elif name not in known:
            close = suggestion(name, known)
            hint = f"did you mean {close}?" if close else "name a key of services"
            yield Fault(where=where, message=f"there is no service {name}", hint=hint)
        elif name in by_name and by_name[name].port is False:
            yield Fault(
                where=where,
                message=f"{name} has no port, so that nothing can call it",
                hint=f"remove `port: false` of {name}, or {name} from needs: workers come last anyway",
            )


def foreign_faults(app: str, services: Sequence[DeclaredService]) -> Iterator[Fault]:
    """Needs of other apps: really of others, and each with an address of its own."""
    variables = {link_variable(service.name): service.name for service in services}
    for service in services:
        where = ("services", service.name, "needs")
        for name in service.foreign:
            owner, _, wanted = name.partition("/")
            variable = link_variable(name)
            if owner == app:
                yield Fault(where=where, message=f"{name} is a service of this app", hint=f"write {wanted}")
            elif variables.setdefault(variable, name) != name:
                yield Fault(
                    where=where,
                    message=f"the addresses of {name} and {variables[variable]} would both be {variable}",
                    hint="rename one of the two services",
                )


def _port_faults(service: DeclaredService) -> Iterator[Fault]:
    if service.port is not False:
        return
    where = ("services", service.name, "port")
    if service.routed:
        yield Fault(
            where=where, message="is false, but the service has a route", hint="remove one of the two"
        )
    if service.asked_over_network:
        yield Fault(
            where=where,
            message="is false, but the health check asks over the network",
            hint="remove it, or use health: {command: ...}",
        )


def _circle_fault(circle: tuple[str, ...]) -> Fault:
    shown = [*circle[:_CYCLE_NAMES_MAX], *(["..."] if len(circle) > _CYCLE_NAMES_MAX else []), circle[0]]
    return Fault(
        where=("services", circle[0], "needs"),
        message=f"services need each other in a circle: {' -> '.join(shown)}",
        hint="none of them could start first: remove one of these needs",
    )


def dependency_order(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Names so that each stands after all that it needs, else in the given order.

    Names that are in a circle or behind one are left out; needs that are no key are ignored.
    """
    position = {name: index for index, name in enumerate(needs)}
    waiting = {name: dict.fromkeys(other for other in needs[name] if other in needs) for name in needs}
    followers: dict[str, list[str]] = defaultdict(list)
    for name, others in waiting.items():
        for other in others:
            followers[other].append(name)
    ready = [(position[name], name) for name, others in waiting.items() if not others]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        ordered.append(name)
        for follower in followers[name]:
            del waiting[follower][name]
            if not waiting[follower]:
                heapq.heappush(ready, (position[follower], follower))
    return tuple(ordered)


def cycles(needs: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Circles of needs that have no name in common, each from the name that stands first; itself excepted."""
    others = {name: tuple(o for o in needs[name] if o in needs and o != name) for name in needs}
    position = {name: index for index, name in enumerate(needs)}
    found: list[tuple[str, ...]] = []
    while True:
        sorted_names = set(dependency_order(others))
        stuck = {name: tuple(o for o in others[name] if o not in sorted_names) for name in others}
        left = {name: later for name, later in stuck.items() if name not in sorted_names}
        if not left:
            return tuple(found)
        circle = _walk_into_circle(left)
        first = min(circle, key=position.__getitem__)
        start = circle.index(first)
        found.append((*circle[start:], *circle[:start]))
        others = {
            name: tuple(o for o in left[name] if o not in circle) for name in left if name not in circle
        }


def _walk_into_circle(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Every name here needs another one here, so that walking on must come back."""
    name = next(iter(needs))
    steps: dict[str, int] = {}
    while name not in steps:
        steps[name] = len(steps)
        name = needs[name][0]
    return tuple(list(steps)[steps[name] :])


# --- environments --------------------------------------------------------------------------------


def host_faults(claims: Sequence[HostClaim]) -> Iterator[Fault]:
    """A host leads to one service of one environment. `claims`: in the order of the pipeline.

    Of two environments the later one keeps the host: the address that users know is production's.
    """
    by_host: dict[str, dict[str, list[HostClaim]]] = defaultdict(lambda: defaultdict(list))
    for claim in claims:
        by_host[claim.host][claim.environment].append(claim)
    for environments in by_host.values():
        for claimants in environments.values():
            yield from (_service_clash(claim, claimants[0]) for claim in claimants[1:])
        *earlier, keeper = (claimants[0] for claimants in environments.values())
        yield from (_environment_clash(claim, keeper) for claim in earlier)


def _service_clash(claim: HostClaim, keeper: HostClaim) -> Fault:
    return Fault(
        where=claim.where,
        message=f"{claim.host} already leads to {keeper.service}",
        hint="a host leads to one service: use another host name",
    )


def _environment_clash(claim: HostClaim, keeper: HostClaim) -> Fault:
    where = claim.where if claim.own else _override_of(claim)
    example = "" if claim.host == CATCH_ALL else f", such as {claim.environment}.{claim.host}"
    return Fault(
        where=where,
        message=f"{claim.host} is the host of {keeper.service} in {keeper.environment}, too",
        hint=f"each environment needs its own host{example}; [] for none",
    )


def _override_of(claim: HostClaim) -> Where:
    return ("environments", claim.environment, "services", claim.service, "route")


def config_faults(environment: str, names: Iterable[str], needed: frozenset[str]) -> Iterator[Fault]:
    """Variables that Tidegate sets itself cannot be configured: the instance would not find its port."""
    links = {link_variable(service): service for service in sorted(needed)}
    for name in names:
        reason = ""
        if name == "PORT":
            reason = "it is the port that the instance must listen on"
        elif name.startswith("TIDEGATE_"):
            reason = "names that begin with TIDEGATE_ are Tidegate's own"
        elif name in ("HOST", "HOME", "TMPDIR"):
            reason = "it is the instance's own address or folder"
        elif name in links:
            own = ", of the same release" if "/" not in links[name] else ""
            reason = f"it is the address of {links[name]}{own}"
        if reason:
            where = ("environments", environment, "config", name)
            yield Fault(where=where, message=f"{name} is set by Tidegate: {reason}", hint="use another name")


def share_faults(where: Where, shares_bps: Sequence[int]) -> Iterator[Fault]:
    """Steps of a canary grow, and end before everybody: 100 % comes by itself."""
    before_bps = 0
    for index, share_bps in enumerate(shares_bps):
        if share_bps >= FULL_EXPOSURE:
            yield Fault(
                where=(*where, index),
                message="should be less than 100 %",
                hint="leave it out: everybody comes after the last step by itself",
            )
        elif share_bps <= before_bps:
            yield Fault(
                where=(*where, index),
                message=f"should be more than the step before it, {before_bps / 100:g}%",
                hint="a canary only grows",
            )
        before_bps = max(before_bps, share_bps)
