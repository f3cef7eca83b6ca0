"""What people can ask of the control plane, with everything that the core may not look up itself.

Gathers randomness, time, ports and packages, builds the request, and lets the core decide on the committed
state. Neighbours: `web.api` translates HTTP to these calls; `loop.Controller` commits the decisions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol

from tidegate import errors, ports
from tidegate.core import model, placements, plan, requests, strategy
from tidegate.core.model import EnvironmentKey, Refusal, RolloutKind, RolloutRequest
from tidegate.core.sequential import Histogram, Plan
from tidegate.engine import loop, pinning
from tidegate.engine.gates import Gates

#: Newest releases per app, and rollouts per environment, whose packages are kept beside those that run.
KEPT_RELEASES = 20
#: Of a release of which nobody said more than it says itself.
UNKNOWN_ORIGIN = ports.Origin()


class Content(Protocol):
    """Packages that are on this machine."""

    def digests(self) -> Collection[str]:
        """All that are complete."""

    def collect(self, keep: Collection[str]) -> tuple[str, ...]:
        """Remove all others; their digests."""


class Memory(Protocol):
    """What is known of the live release's past. Never fails: what is not known is empty, or plain."""

    def past(self, key: EnvironmentKey, live: model.Placement) -> Histogram:
        """Latencies of its last minutes."""

    def plan(self, key: EnvironmentKey) -> Plan:
        """How much evidence may count, by the noise of its last day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks, why, and under which idempotency key."""

    by: str = ""
    name: str = ""
    """Proved name of who asks; `by` may say more."""
    why: str = ""
    key: str = ""
    accepted: tuple[str, ...] = ()
    """Migrations without an exact way back, or reverts that lose rows, that were agreed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Why the gate is open."""

    grounds: str
    """For people who read the admission later."""
    emergency: str = ""
    """Not empty: the gate is bypassed, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Deploy, roll back, steer. Safe to call from any thread."""

    controller: loop.Controller
    store: ports.Store
    lease: ports.Lease
    clock: ports.Clock
    content: Content
    link_ports: tuple[int, ...]
    memory: Memory
    secrets: ports.Secrets
    origins: ports.Origins
    gates: Gates
    wake: Callable[[], None]
    """Called after each accepted request, so that the loop looks at once."""

    def add_release(self, release: model.Release, origin: ports.Origin = UNKNOWN_ORIGIN) -> model.Release:
        """Number a release whose package is here, or return its twin; signed is where it comes from.

        Raises NotFoundError, SealError.
        """
        return self.import_release(release, lambda added: self.origins.sign(added, origin))

    def import_release(self, release: model.Release, prove: Callable[[model.Release], None]) -> model.Release:
        """The same of a release whose provenance was signed elsewhere: `prove` keeps it."""
        if release.digest not in self.content.digests():
            raise errors.NotFoundError(f"The package {release.digest} is not here.", hint="Upload it first.")
        added = self.store.add_release(self.lease, release)
        prove(added)
        self.content.collect(self._kept())
        return added

    def enter(
        self, key: EnvironmentKey, release: int, asked: Asked, entry: Entry, *, supersede: bool
    ) -> requests.Decision:
        """Begin the rollout of a release that the gate lets in; under the same key it is the same rollout."""
        repeated = self.repeated(key, asked)
        if repeated is not None:
            return repeated
        request = self.deploy_request(key, release, asked)
        admitted: list[RolloutRequest] = []

        def decide(state: model.EnvironmentState) -> requests.Decision:
            """Admitted unless nothing can come of it, on the very state that is committed upon."""
            if admitted or state.rollout is not None or not placements.is_live(state, request):
                admitted[:] = admitted or [self._admitted(key, request, entry)]
                return requests.start(state, _adapted(state, admitted[0]), supersede=supersede)
            return requests.start(state, request, supersede=supersede)

        return self._decided(key, decide)

    def _admitted(self, key: EnvironmentKey, request: RolloutRequest, entry: Entry) -> RolloutRequest:
        found = self.release(key.app, request.release)
        self.prove(key, found)
        self.gates.check(key, found)
        admission = self.gates.admission(key, found, entry.grounds)
        return replace(request, admission=admission, emergency=entry.emergency)

    def deploy_request(self, key: EnvironmentKey, release: int, asked: Asked) -> RolloutRequest:
        """The request of a deploy, with links and tokens. Raises NotFoundError, RefusedError."""
        found = self.release(key.app, release)
        spec = found.environment(key.environment)
        if spec is None:
            known = ", ".join(name for name, _ in found.environments)
            raise errors.RefusedError(
                f"{found.name} does not know the environment {key.environment}.",
                reason=Refusal.UNKNOWN_ENVIRONMENT.value,
                hint=f"Its tidegate.yaml names: {known}.",
            )
        pinned = pinning.newest(key, spec.secrets, self.secrets.versions(key))
        request = self._request(key, RolloutKind.DEPLOY, found, spec, asked)
        return self._with_past(key, replace(request, secrets=pinned))

    def rollback(
        self, key: EnvironmentKey, to: int | None, asked: Asked, *, canary: bool, supersede: bool
    ) -> requests.Decision:
        """Go back to a release that was live, with its configuration as it was; by a switch or its canary."""
        repeated = self.repeated(key, asked)
        if repeated is not None:
            return repeated
        request = self.rollback_request(key, to, asked)
        if not canary:
            request = requests.by_switch(request)
        return self._decided(key, lambda current: requests.start(current, request, supersede=supersede))

    def rollback_request(self, key: EnvironmentKey, to: int | None, asked: Asked) -> RolloutRequest:
        """The request of a rollback by the release's own strategy. Raises NotFoundError, RefusedError."""
        state = self.store.load(key).state
        history = tuple(record.rollout for record in self.store.history(key, limit=1000))
        past = requests.rollback_target(state, history, to)
        admission = self.gates.readmitted(key, past)  # before anything else that the history says is believed
        request = self._request(
            key, RolloutKind.ROLLBACK, self.release(key.app, past.release), past.spec, asked
        )
        pinned = pinning.of_then(key, past.release, past.secrets, self.secrets.kept(key))
        return replace(
            request,
            secrets=pinned,
            admission=admission,
            emergency=past.emergency,
        )

    def steer(
        self, key: EnvironmentKey, decide: Callable[[model.EnvironmentState], requests.Decision]
    ) -> requests.Decision:
        """Pause, resume, promote or abort. Raises NotFoundError, RefusedError."""
        self._known(key)
        return self._decided(key, decide)

    def plan(self, key: EnvironmentKey, release: int, *, supersede: bool) -> plan.Plan:
        """What a deploy would do."""
        request = self.deploy_request(key, release, Asked())
        state = self.store.load(key).state
        return plan.plan(state, _adapted(state, request), supersede=supersede)

    def _decided(
        self, key: EnvironmentKey, decide: Callable[[model.EnvironmentState], requests.Decision]
    ) -> requests.Decision:
        decision = self.controller.request(key, decide)
        self.wake()
        return decision

    def repeated(self, key: EnvironmentKey, asked: Asked) -> requests.Decision | None:
        """The answer to a request that was made before under the same idempotency key."""
        if not asked.key:
            return None
        state = self.store.load(key).state
        if state.pending is not None and state.pending.key == asked.key:
            return requests.Decision(state=state, no_op=True)
        record = self.store.rollout_by_request_key(key, asked.key)
        return requests.Decision(state=state, no_op=True, rollout=record.rollout.id) if record else None

    def _request(
        self,
        key: EnvironmentKey,
        kind: RolloutKind,
        release: model.Release,
        spec: model.EnvironmentSpec,
        asked: Asked,
    ) -> RolloutRequest:
        if release.digest not in self.content.digests():
            raise errors.RefusedError(
                f"The package of {release.name} is no longer on this machine.",
                reason=Refusal.NOT_KEPT.value,
                hint=f"The newest {KEPT_RELEASES} releases are kept; deploy its source again.",
            )
        self._refuse_taken_hosts(key, spec)
        needed = {name for service in spec.services for name in service.needs}
        if spec.verify is not None:  # the job that verifies finds every service of the new release alone
            needed |= {service.name for service in spec.services if service.serves}
        foreign = {name for service in spec.services for name in service.foreign}
        links = self.store.reserve_link_ports(
            self.lease, key, (*sorted(needed), *sorted(foreign)), self.link_ports
        )
        return RolloutRequest(
            kind=kind,
            release=release.number,
            digest=release.digest,
            spec=spec,
            strategy=spec.strategy,
            links=tuple(link for link in links if link.service not in foreign),
            foreign=tuple(
                model.ForeignLink(service=link.service, port=link.port)
                for link in links
                if link.service in foreign
            ),
            salt=secrets.token_hex(8),
            preview=secrets.token_hex(24),
            by=asked.by,
            why=asked.why,
            key=asked.key,
            at=self.clock.now(),
            accepted=asked.accepted,
            starts_ahead=True,  # scripts of SQL: no library of the app compares versions when it starts
        )

    def _with_past(self, key: EnvironmentKey, request: RolloutRequest) -> RolloutRequest:
        """A canary is compared with what is live: what that release was like belongs to the request."""
        live = self.store.load(key).state.live
        if live is None or request.strategy.kind is not model.StrategyKind.CANARY:
            return request
        return replace(request, past=self.memory.past(key, live), plan=self.memory.plan(key))

    def _refuse_taken_hosts(self, key: EnvironmentKey, spec: model.EnvironmentSpec) -> None:
        wanted = {host for service in spec.services for host in service.hosts}
        for other in self.store.environments():
            if other == key:
                continue
            for placement in self.store.load(other).state.placements:
                taken = wanted & {host for service in placement.spec.services for host in service.hosts}
                if taken:
                    raise errors.RefusedError(
                        f"The host {min(taken)} is served by {other} already.",
                        reason=Refusal.HOST_TAKEN.value,
                        hint="Give this environment a route of its own: "
                        f"environments.{key.environment}.services.NAME.route.",
                    )

    def release(self, app: str, number: int) -> model.Release:
        """Raises NotFoundError."""
        found = self.store.release(app, number)
        if found is None:
            raise errors.NotFoundError(f"{app} has no release r{number}.", hint="`tide releases` lists them.")
        return found

    def prove(self, key: EnvironmentKey, release: model.Release) -> None:
        """Refuse what nobody we trust says it has built. Raises RefusedError."""
        try:
            self.origins.prove(release)
        except errors.SealError as error:
            raise errors.RefusedError(
                f"{release.name} may not enter {key}: {error.message}",
                reason=Refusal.TAMPERED.value,
                hint=error.hint,
            ) from error

    def _known(self, key: EnvironmentKey) -> None:
        if key not in self.store.environments():
            raise errors.NotFoundError(
                f"Nothing was ever deployed to {key}.", hint="`tide deploy` brings the first release."
            )

    def _kept(self) -> set[str]:
        """Digests that run, that a rollout asks for, and those of the newest releases of each app."""
        states = [self.store.load(key).state for key in self.store.environments()]
        kept = {placement.digest for state in states for placement in state.placements}
        kept |= {rollout.request.digest for state in states for rollout in (state.rollout,) if rollout}
        kept |= {state.pending.digest for state in states if state.pending}
        for state in states:
            kept |= {r.rollout.request.digest for r in self.store.history(state.key, limit=KEPT_RELEASES)}
        for app in sorted({state.key.app for state in states}):
            kept |= {release.digest for release in self.store.releases(app, limit=KEPT_RELEASES)}
        return kept


def _adapted(state: model.EnvironmentState, request: RolloutRequest) -> RolloutRequest:
    """With nothing live there is nobody to compare with: the first release takes over by a switch."""
    if state.live is not None:
        return request
    return requests.with_strategy(request, strategy.for_first_release(request.strategy))
