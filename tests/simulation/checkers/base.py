"""The events that a checker can listen to; each does nothing until it is overridden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.core import model
from tidegate.core.migrations import Step

if TYPE_CHECKING:
    from tests.simulation.world import World


class Violation(AssertionError):
    """An invariant does not hold. The first word is its name."""

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(f"{name}: {detail}")


class Checker:
    """Listens to one universe."""

    def __init__(self, world: World) -> None:
        self.world = world

    def on_tick(self) -> None:
        """A simulated second has passed."""

    def on_look(self, key: model.EnvironmentKey, *, runtime: bool, router: bool) -> None:
        """The leader has looked; whether it got an answer that it need not take for outdated.

        What it was shown is `World.seen`.
        """

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        """A state was replaced."""

    def on_apply(self, group: model.InstanceGroup) -> None:
        """A group is about to be started or completed."""

    def on_remove(self, key: model.EnvironmentKey, group_id: str) -> None:
        """A group is about to be stopped; it may be gone already."""

    def on_removed_servers(self, key: model.EnvironmentKey, cut: int, servers: tuple[str, ...]) -> None:
        """A route command took servers away, with so many sessions on them."""

    def on_route(
        self,
        key: model.EnvironmentKey,
        before: model.Route | None,
        after: model.Route | None,
        command: model.RouteTable | None,
    ) -> None:
        """The running route was written, by a command or (None) by a restart of the router."""

    def on_schema(self, key: model.EnvironmentKey, step: Step) -> None:
        """A step of a migration has landed in the database."""

    def on_end(self) -> None:
        """Faults have stopped long ago."""
