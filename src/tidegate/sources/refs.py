"""Names of branches and tags: which are taken at all, and which are built. Pure.

A name is written by whoever may push, and ends in terminals, logs and other people's scripts. git refuses
control characters and the worst of its own syntax; what else nobody needs is refused here. Neighbours:
`arrivals` asks before anything is stored, `cli.source` when a pattern is given.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Final

from tidegate.pushes import Source

BRANCH: Final = "refs/heads/"
TAG: Final = "refs/tags/"
#: Ours alone: hidden from pushes, and no other name may look like it.
OWN: Final = "refs/tidegate/"

NAME_BYTES_MAX: Final = 200
PATTERNS_MAX: Final = 20

_REVISION: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
#: What git itself forbids in a name (git-check-ref-format), beside what is not printable.
_FORBIDDEN: Final = re.compile(r"[\s~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$")
_PATTERN: Final = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._/+@#*?-]{0,99}", re.ASCII)


def is_revision(text: str) -> bool:
    """The whole name of a commit, in hexadecimal; a short one is none."""
    return _REVISION.fullmatch(text) is not None


def is_nothing(revision: str) -> bool:
    """What git says instead of a commit when a ref is new, or gone."""
    return is_revision(revision) and not revision.strip("0")


def short(ref: str) -> str:
    """The name as people write it: `main`, or `tag v1`."""
    if ref.startswith(TAG):
        return f"tag {ref.removeprefix(TAG)}"
    return ref.removeprefix(BRANCH)


def trouble(ref: str) -> str:
    """Why a ref of this name is refused; empty: it is not."""
    prefix = next((prefix for prefix in (BRANCH, TAG) if ref.startswith(prefix)), None)
    if prefix is None:
        return "only branches and tags can be pushed"
    name = ref.removeprefix(prefix)
    if len(ref.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        return f"its name is longer than {NAME_BYTES_MAX} bytes"
    if not name or not name.isprintable() or _FORBIDDEN.search(name):
        return "its name has characters that do not belong in one"
    if any(part.startswith(("-", ".")) for part in name.split("/")):
        return "a part of its name begins with - or ."
    return ""


def pattern_trouble(pattern: str) -> str:
    """Why this is no pattern; empty: it is one."""
    if not _PATTERN.fullmatch(pattern) or ".." in pattern:
        return "write a name, or a pattern with * and ?, of letters, digits and ._/+@#-"
    return ""


def is_meant(source: Source, ref: str) -> bool:
    """Whether commits of this ref are built."""
    if trouble(ref):
        return False
    is_tag = ref.startswith(TAG)
    name = ref.removeprefix(TAG if is_tag else BRANCH)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (source.tags if is_tag else source.branches))
