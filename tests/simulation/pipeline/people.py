"""Who asks in a universe: commits come in, buttons are pressed, approvals are given late or never.

Each wish has a key of its own, under which it is repeated until somebody answers, as a client does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tests.simulation.pipeline.plane import ControlPlane, Process
from tests.simulation.pipeline.world import APP, KEYS, NAMES, World
from tidegate import errors
from tidegate.core import promotions, requests
from tidegate.core.model import EnvironmentKey
from tidegate.core.promotions import Approval, Promotion, Waits
from tidegate.core.roles import Asker, Role
from tidegate.engine.operations import Asked

#: Who may approve in this world, with their roles.
APPROVERS: Final = (
    ("bob", Role.APPROVER),
    ("cleo", Role.APPROVER),
    ("dan", Role.ADMIN),
    ("eve", Role.DEPLOYER),
    ("ada", Role.ADMIN),
)
#: Times that a wish is repeated when nobody answers.
TRIES: Final = 40


@dataclass(slots=True, kw_only=True)
class Wish:
    """Somebody wants a release somewhere."""

    release: int
    target: str
    key: str
    supersede: bool
    pushed: bool
    emergency: str = ""
    tries: int = 0


class People:
    """Everybody outside."""

    def __init__(self, world: World, plane: ControlPlane) -> None:
        self._world = world
        self._plane = plane
        rng = world.rng
        self._wishes: list[Wish] = []
        self._count = 0
        self._pace = rng.choice((0.05, 0.1, 0.2))
        self._approves = rng.choice((0.0, 0.2, 0.5, 1.0))
        """Probability per second that somebody looks whether something waits."""
        self._meddles = rng.choice((0.0, 0.05, 0.2))
        self._supersedes = rng.choice((0.0, 0.3, 1.0))
        world.meanwhile = self._meanwhile

    def tick(self) -> None:
        """What they do in a second."""
        rng = self._world.rng
        if not self._world.calm:
            if rng.random() < self._pace:
                self.want()
                if rng.random() < 0.2:
                    self.want()  # two pushes at once
            if rng.random() < self._meddles:
                self._meddle()
            if rng.random() < self._approves:
                self.approve()
        for wish in list(self._wishes):
            self.ask(wish)

    @property
    def is_content(self) -> bool:
        """Everything they asked for was answered."""
        return not self._wishes

    def want(self) -> None:
        """Somebody has an idea."""
        rng, process = self._world.rng, self._plane.process
        if process is None:
            return
        known = len(self._world.releases)
        if known and rng.random() < 0.3:
            number = rng.randint(max(1, known - 3), known)
        else:
            number = process.operations.store.add_release(process.lease, self._world.release()).number
        self._count += 1
        release = self._world.releases[number]
        names = [name for name, _ in release.environments]
        emergency = "the shop is down" if rng.random() < self._meddles else ""
        wish = Wish(
            release=number,
            target=names[-1] if rng.random() < 0.8 else rng.choice(names),
            key=f"wish-{self._count}",
            supersede=rng.random() < self._supersedes,
            pushed=not emergency and rng.random() < 0.5,
            emergency=emergency,
        )
        self._wishes.append(wish)
        self.ask(wish)

    def ask(self, wish: Wish) -> None:
        """Once more, until it is answered."""
        wish.tries += 1
        process = self._plane.process
        if process is None:
            return
        self._world.note(f"asked: {wish}")
        answered = self._pressed(lambda: self._asked(process, wish))
        if answered or wish.tries > TRIES:
            self._wishes.remove(wish)

    def _asked(self, process: Process, wish: Wish) -> bool:
        key = EnvironmentKey(app=APP, environment=wish.target)
        asked = Asked(by="ada", name="ada", why=wish.key, key=wish.key)
        self._world.checker.asked(wish.key, emergency=bool(wish.emergency))
        self._world.reached["pushed" if wish.pushed else "emergency" if wish.emergency else "deployed"] += 1
        if wish.pushed:
            made = process.delivery.promote(APP, wish.release, wish.target, asked, supersede=wish.supersede)
            found = made.key == wish.key
        else:
            answer = process.delivery.deploy(
                key, wish.release, asked, supersede=wish.supersede, emergency=wish.emergency
            )
            by_promotion = answer.promotion is not None and answer.promotion.key == wish.key
            found = by_promotion or (answer.decision.rollout is not None and not answer.decision.no_op)
        if found:
            self._world.checker.accepted(wish.key, key)
        return True

    def approve(self) -> None:
        """Somebody approves what waits somewhere, whether it is theirs to approve or not."""
        process = self._plane.process
        state = self._world.kept.load(APP).state
        waits = [p for p in state.promotions if p.waits is Waits.APPROVAL]
        if process is None or not waits:
            return
        one = self._world.rng.choice(waits)
        self.approves(process, one, self._world.rng.choice(APPROVERS))

    def approves(self, process: Process, one: Promotion, who: tuple[str, Role]) -> bool:
        asker = Asker(name=who[0], role=who[1])
        given = Approval(
            environment=one.environment, by=who[0], role=who[1].value, at=self._world.clock.now()
        )

        def press() -> bool:
            key = EnvironmentKey(app=APP, environment=one.environment)
            self._world.checker.approving(given, one.release)
            process.delivery.approve(key, one.release, asker)
            self._world.reached["approved"] += 1
            return True

        return self._pressed(press)

    def _meddle(self) -> None:
        process, rng = self._plane.process, self._world.rng
        if process is None:
            return
        changed = [key for key in KEYS if len(self._world.store.load(key).state.placements) > 1]
        key = rng.choice(changed or KEYS)
        acts: list[Callable[[], object]] = [
            lambda: process.operations.steer(key, lambda state: requests.abort(state, by="bob")),
            lambda: process.delivery.withdraw(key, None, "bob"),
            lambda: process.operations.rollback(
                key, None, Asked(by="bob", name="bob"), canary=False, supersede=False
            ),
        ]
        names = ("aborted", "withdrawn", "rolled back")
        index = rng.choice((0, 1, 2, 2, 2))

        def press() -> bool:
            acts[index]()
            self._world.reached[names[index]] += 1
            return True

        self._pressed(press)

    def _meanwhile(self) -> None:
        """Somebody's request is committed between a look and its decision."""
        process = self._plane.process
        if process is None:
            return
        state = self._world.kept.load(APP).state
        if state.promotions and self._world.rng.random() < 0.3:
            one = self._world.rng.choice(state.promotions)
            if one.waits is Waits.APPROVAL:
                self.approves(process, one, self._world.rng.choice(APPROVERS))
            return
        if self._world.releases:
            self._count += 1
            number = self._world.rng.randint(1, len(self._world.releases))
            names = [name for name, _ in self._world.releases[number].environments]
            wish = Wish(
                release=number,
                target=self._world.rng.choice(names),
                key=f"wish-{self._count}",
                supersede=self._world.rng.random() < self._supersedes,
                pushed=True,
            )
            self._wishes.append(wish)
            self.ask(wish)

    def _pressed(self, act: Callable[[], bool]) -> bool:
        """Whether somebody has answered: a refusal is an answer too."""
        try:
            return bool(self._plane.guarded(act))
        except errors.RequestError as error:
            reason = getattr(error, "reason", "") or error.kind
            self._world.reached[f"refused: {reason}"] += 1
            return True

    # --- who edits the database ---

    def tamper(self) -> None:
        """A pass is forged, copied from another release, or edited; a package is changed."""
        world, rng = self._world, self._world.rng
        if not world.strikes(world.faults.tamper) or not world.releases:
            return
        number = rng.randint(max(1, len(world.releases) - 2), len(world.releases))
        target = world.releases[number]
        passes = world.kept.kept_passes.setdefault(APP, [])
        forged = promotions.Pass(
            environment=rng.choice(NAMES),
            identity=promotions.identity(target),
            release=number,
            digest=target.digest,
            rollout=1,
            at=world.clock.now(),
        )
        how = rng.choice(("forged", "copied", "moved", "changed"))
        if how == "changed":
            if rng.random() < 0.6:
                world.content.changed.add(target.digest)
                world.reached["tampered: changed"] += 1
            return
        if how in ("copied", "moved") and not passes:
            return
        if how == "copied":
            forged = replace(forged, seal=rng.choice(passes).seal)
        elif how == "moved":
            known = rng.choice(passes)
            forged = replace(known, environment=rng.choice(NAMES))
        world.note(f"tampered: {how} {forged}")
        world.reached[f"tampered: {how}"] += 1
        passes.append(forged)
