"""Which resource limits the kernel can keep here, and the control groups that ask it to.

Hides the difference between cgroup v2, v1 and the hybrid of both. Only plans: the shim makes the groups, and
removes them when the instance has ended; what a killed shim left is removed with the instance's folder. A
group is made below the one this process is in where that is allowed (a container's own limits go on to
hold), else below the root of the hierarchy.

Invariant: what `unenforced` does not name is kept by the kernel. Neighbours: shim.py, process.py.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tidegate.core import model
from tidegate.runtimes import plan as plans

_CONTROLLERS = ("memory", "cpu", "pids")

#: CFS period in microseconds: the kernel's default, over which `cpus` is measured.
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where groups can be made on this machine."""

    unified: Path | None
    """v2: a folder in which groups can be made; every process of one can be killed at once."""
    unified_controllers: frozenset[str]
    legacy: tuple[tuple[str, Path], ...]
    """v1: controller and the folder in which its groups can be made."""

    @property
    def enforced(self) -> frozenset[str]:
        return self.unified_controllers | {controller for controller, _ in self.legacy}

    def groups(self, name: str, limits: model.Limits) -> list[plans.ControlGroup]:
        """The groups to make for the instance of that name, which is unique on the machine."""
        found = []
        if self.unified is not None:
            wanted = _unified_values(limits)
            values = {
                key: text for key, text in wanted.items() if key.split(".")[0] in self.unified_controllers
            }
            found.append(plans.ControlGroup(path=str(self.unified / name), values=values))
        for controller, folder in self.legacy:
            values = _legacy_values(controller, limits)
            if values or controller == "memory":  # memory always: it counts kills for lack of memory
                found.append(plans.ControlGroup(path=str(folder / name), values=values))
        return found

    def remove(self, name: str) -> None:
        """Remove what groups are left of an instance whose shim could not; those in use stay."""
        for folder in (self.unified, *(folder for _, folder in self.legacy)):
            if folder is not None:
                with contextlib.suppress(OSError):
                    (folder / name).rmdir()

    def unenforced(self, limits: model.Limits) -> tuple[str, ...]:
        """Limits that are asked for and that nothing keeps here, in words."""
        asked = {"memory": limits.memory_bytes, "cpu": limits.cpus, "pids": limits.processes}
        words = {"memory": "memory", "cpu": "CPU", "pids": "number of processes"}
        return tuple(
            words[name] for name, limit in asked.items() if limit is not None and name not in self.enforced
        )


def _unified_values(limits: model.Limits) -> dict[str, str]:
    values: dict[str, str] = {}
    if limits.memory_bytes is not None:
        values |= {"memory.max": str(limits.memory_bytes), "memory.oom.group": "1"}
    if limits.cpus is not None:
        values["cpu.max"] = f"{_quota_us(limits.cpus)} {_PERIOD_US}"
    if limits.processes is not None:
        values["pids.max"] = str(limits.processes)
    return values


def _legacy_values(controller: str, limits: model.Limits) -> dict[str, str]:
    if controller == "memory" and limits.memory_bytes is not None:
        return {"memory.limit_in_bytes": str(limits.memory_bytes)}
    if controller == "cpu" and limits.cpus is not None:
        return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(_quota_us(limits.cpus))}
    if controller == "pids" and limits.processes is not None:
        return {"pids.max": str(limits.processes)}
    return {}


def _quota_us(cpus: float) -> int:
    return max(1_000, round(cpus * _PERIOD_US))  # the kernel refuses less than a millisecond


# --- what there is ------------------------------------------------------------------------------------


def detect(*, mounts: str = "/proc/self/mounts", membership: str = "/proc/self/cgroup") -> Hierarchies:
    """Find, and make, Tidegate's own folder in each hierarchy that lets us."""
    own = _membership(membership)
    unified, controllers = None, frozenset[str]()
    legacy: dict[str, Path] = {}
    for mount, kind, options in _mounts(mounts):
        if kind == "cgroup2" and unified is None:
            # The kernel switches controllers on only below a group without processes of its own, so the
            # group that this process is in rarely is the one.
            base = max(_bases(mount, own.get("", "/")), key=lambda base: len(_delegate(base)))
            unified = _subfolder(base)
            controllers = frozenset() if unified is None else _delegate(base) & _delegate(unified)
        elif kind == "cgroup":
            for controller in options & frozenset(_CONTROLLERS):
                bases = _bases(mount, own.get(controller, "/"))
                folder = next((made for base in bases if (made := _subfolder(base))), None)
                if folder is not None:
                    legacy[controller] = folder
    ordered = tuple(
        (name, legacy[name]) for name in _CONTROLLERS if name in legacy and name not in controllers
    )
    return Hierarchies(unified=unified, unified_controllers=controllers, legacy=ordered)


def _mounts(path: str) -> list[tuple[Path, str, frozenset[str]]]:
    found = []
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, mount, kind, options, *_ = line.split()
            if kind in {"cgroup", "cgroup2"}:
                found.append((Path(mount), kind, frozenset(options.split(","))))
    return found


def _membership(path: str) -> dict[str, str]:
    """Controller -> path of our own group; the empty name is v2."""
    found = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, controllers, group = line.rstrip("\n").split(":", 2)
            found.update(dict.fromkeys(controllers.split(","), group))
    return found


def _bases(mount: Path, own: str) -> list[Path]:
    """Our own group, the one above it, the root of the hierarchy."""
    inside = mount / own.lstrip("/")
    return [inside] if inside == mount else list(dict.fromkeys([inside, inside.parent, mount]))


def _subfolder(base: Path) -> Path | None:
    folder = base / "tidegate"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _delegate(folder: Path) -> frozenset[str]:
    """Switch the controllers on for groups below `folder`; returns those that are on."""
    with contextlib.suppress(OSError):
        there = set((folder / "cgroup.controllers").read_text(encoding="ascii").split())
        for controller in _CONTROLLERS:
            if controller in there:
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
        on = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
        return frozenset(on) & frozenset(_CONTROLLERS)
    return frozenset()
