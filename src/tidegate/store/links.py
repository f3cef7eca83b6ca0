"""Which loopback port serves which service of which slot: the choice, apart from where it is kept.

Invariants: a port is given once; who has one keeps it, also when it is no longer among the available
ones, because instances that run now were told of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tidegate import errors
from tidegate.core import model


def allot(
    held: Mapping[tuple[str, int], int],
    taken: Collection[int],
    services: tuple[str, ...],
    available: tuple[int, ...],
) -> tuple[model.Link, ...]:
    """A link per service and slot, in this order: those in `held`, by (service, slot), and new ones.

    One of another app, `app/service`, has a single link: whoever calls it, its stable release answers.
    `taken` are the ports of all environments. Raises RefusedError when `available` has not enough.
    """
    free = iter([port for port in dict.fromkeys(available) if port not in taken])
    links = []
    for service in dict.fromkeys(services):
        for slot in range(1 if "/" in service else model.SLOTS):
            port = held.get((service, slot)) or next(free, None)
            if port is None:
                raise errors.RefusedError(
                    f"No internal port is left for service {service}: all {len(available)} are taken.",
                    reason=model.Refusal.NO_PORTS,
                    hint="Give the control plane a larger range of internal ports.",
                )
            links.append(model.Link(service=service, slot=slot, port=port))
    return tuple(links)
