"""Smoke checks of a job: paths that must answer before its command runs.

Runs in the child that becomes the command, as the app's user: what that user may not reach, it does not reach
either. Each path is asked once: the instances are ready, so that a failure is an answer. Standard library
only. Neighbours: shim.py (hands it to the child), asking.py (asks), plan.py (says what).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Final

from tidegate.runtimes import asking
from tidegate.runtimes import plan as plans

#: Of each path: longer than a page may take that people wait for.
TIMEOUT_S: Final = 10.0

_OK, _BAD = 200, 400


def failure(checks: Iterable[plans.SmokeCheck], *, timeout_s: float = TIMEOUT_S) -> str:
    """Ask all paths, saying a line of each; the first that failed, in words, or nothing."""
    for check in checks:
        begun = time.monotonic()
        wrong, answered = _ask(check, timeout_s)
        took_ms = (time.monotonic() - begun) * 1000
        _say(f"smoke GET {asking.shown(check['path'])} {answered} in {took_ms:.0f} ms")
        if wrong:
            return wrong
    return ""


def _ask(check: plans.SmokeCheck, timeout_s: float) -> tuple[str, str]:
    """What is wrong, if anything is, and what came."""
    asked = f"GET {asking.shown(check['path'])}"
    if check["port"] is None:
        return f"{asked} could not be asked: {check['service']} has no address", "not asked"
    answer = asking.ask(check["port"], check["path"], timeout_s)
    if answer.status is None:
        said = answer.said.removeprefix(f"{asked} ")
        return f"{asked}: {said}", said
    wanted = check["status"]
    if answer.status == wanted or (wanted is None and _OK <= answer.status < _BAD):
        return "", str(answer.status)
    expected = "2xx or 3xx" if wanted is None else str(wanted)
    return f"{asked} answered {answer.status} instead of {expected}", str(answer.status)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"tidegate: {text}\n".encode(errors="replace"))
