"""What one value of a gate means: moments of a week or of the calendar, time zones, roles, statuses.

Hides the spelling, like `scalars`, of which this is a part. Names of zones are those of the IANA database as
the dependency `tzdata` has it, so that a file means the same on every machine.

Neighbours: `definition` uses these types, `gates` has the rules between them.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import importlib.resources
import re
from typing import Annotated, Any, Final

from tidegate.core.roles import Role
from tidegate.manifest.scalars import (
    DAY_S,
    DURATION_S_MAX,
    DURATION_SCHEMA,
    VARIABLE_PATTERN,
    Mistake,
    count_schema,
    count_up_to,
    duration_s,
    kind,
    listed,
    matched,
    not_this,
    or_list,
    printable,
    text_of,
    unquoted,
)

DAY_MINUTES: Final = 1440
APPROVERS_MAX: Final = 20  # of one release: more is a slip, nobody could ever deploy
SECRETS_MAX: Final = 200
FREEZES_MAX: Final = 50
SMOKES_MAX: Final = 50
STATUS_MIN, STATUS_MAX = 200, 599  # lower ones are no final answers
EXPIRY_S_MIN: Final = 1
REMARK_LENGTH_MAX: Final = 200

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_PATTERN = "|".join(f"[{day[0].upper()}{day[0]}]{day[1:3]}({day[3:]})?" for day in _DAYS)
_TIME_PATTERN = r"([01]?[0-9]:[0-5][0-9]|2[0-3]:[0-5][0-9]|24:00)"
MOMENT_PATTERN: Final = (  # years of this century and the next: others are slips
    rf"^({_DAY_PATTERN})( {_TIME_PATTERN})?$|^2[01][0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_TIME_PATTERN})?$"
)
_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+/-]{0,49}$"

Moment = int | dt.datetime
"""Minutes since Monday 00:00, in each week; or a date, once. By the clock on the wall."""


# --- freezes -----------------------------------------------------------------------------------------


def _moment(value: Any) -> Moment:
    wanted = "a time such as fri 16:00, or 2026-12-20 16:00"
    text = text_of(value, wanted)
    if not re.fullmatch(MOMENT_PATTERN, text, re.ASCII):
        raise not_this(wanted, text, _moment_hint(text))
    day, _, time = text.replace("T", " ", 1).partition(" ") if text[0].isdecimal() else text.partition(" ")
    hour, _, minute = (time or "00:00").partition(":")
    minutes = int(hour) * 60 + int(minute)
    if text[0].isdecimal():
        return _date(day) + dt.timedelta(minutes=minutes)
    index = next(index for index, name in enumerate(_DAYS) if name.startswith(day.lower()[:3]))
    return (index * DAY_MINUTES + minutes) % (7 * DAY_MINUTES)


def _date(text: str) -> dt.datetime:
    try:
        date = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"should be a day of the calendar, and {text} is none") from None
    return date


def _moment_hint(text: str) -> str:
    word = text.split(" ", maxsplit=1)[0].lower()
    close = difflib.get_close_matches(word, [*_DAYS, *(day[:3] for day in _DAYS)], n=1)
    if close and word != close[0]:
        return f"did you mean {close[0][:3]}?"
    if re.fullmatch(_TIME_PATTERN, text):
        return f"say the day, too: mon {text}"
    if re.search(r"[+-][0-9]{2}:?[0-9]{2}$|Z$", text):
        return "without an offset: zone says where the clock hangs"
    return ""


@functools.cache
def zones() -> frozenset[str]:
    """All names of the IANA database."""
    text = importlib.resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(text.split()) - {"Factory"}


def _zone(value: Any) -> str:
    wanted = "a time zone such as Europe/Berlin or UTC"
    text = matched(value, _ZONE_PATTERN, wanted)
    if text in zones():
        return text
    ends = {name.rpartition("/")[2].lower(): name for name in sorted(zones(), reverse=True)}
    names = {**ends, **{name.lower(): name for name in zones()}}
    close = difflib.get_close_matches(text.lower().replace(" ", "_"), names, n=1, cutoff=0.8)
    hint = (
        f"did you mean {names[close[0]]}?" if close else "a name of the IANA database, such as Europe/Berlin"
    )
    raise Mistake(f"should be {wanted}, and there is no {text}", hint)


def _remark(value: Any) -> str:
    wanted = "a few words"
    text = printable(text_of(value, wanted), wanted)
    if len(text) > REMARK_LENGTH_MAX:
        raise Mistake(f"should be at most {REMARK_LENGTH_MAX} letters long")
    return text


MomentOfFreeze = Annotated[Moment, *kind(_moment, {"type": "string", "pattern": MOMENT_PATTERN})]
Zone = Annotated[str, *kind(_zone, {"type": "string", "pattern": _ZONE_PATTERN})]
Remark = Annotated[str, *kind(_remark, {"type": "string"})]


# --- approvals ---------------------------------------------------------------------------------------

#: Roles below may not approve anything: naming them would ask for what nobody can give.
_APPROVING = tuple(role for role in Role if role.includes(Role.APPROVER))


def _role(value: Any) -> str:
    wanted = " or ".join(_APPROVING)
    text = text_of(value, wanted)
    if text in {*Role} - {*_APPROVING}:
        raise Mistake(f"should be {wanted}: a {text} may not approve anything")
    if text not in _APPROVING:
        raise not_this(wanted, text)
    return text


def _roles(value: Any) -> tuple[str, ...]:
    return listed(value, _role, "the name of a role, or a list of them")


def _expiry(value: Any) -> float:
    found = duration_s(value, "a duration such as 12h, 3d or 7d")
    if not EXPIRY_S_MIN <= found <= DURATION_S_MAX:
        raise Mistake(f"should be between 1s and {DURATION_S_MAX // DAY_S}d")
    return found


Approvers = Annotated[int, *kind(count_up_to(APPROVERS_MAX), count_schema(APPROVERS_MAX))]
Roles = Annotated[tuple[str, ...], *kind(_roles, or_list({"enum": [*_APPROVING]}))]
Expiry = Annotated[float, *kind(_expiry, DURATION_SCHEMA)]


# --- checks and secrets ------------------------------------------------------------------------------


def _status(value: Any) -> int:
    number = int(unquoted(value, r"^[1-9][0-9]{2}$", "a status such as 200 or 404"))
    if not STATUS_MIN <= number <= STATUS_MAX:
        raise Mistake(f"should be between {STATUS_MIN} and {STATUS_MAX}")
    return number


def _secret_form(value: Any) -> bool:
    """Whether it comes as a file. What was written is never repeated: it may be the secret itself."""
    hint = "the value never stands in this file: `tide secret set` takes it"
    try:
        text = text_of(value, "file or variable")
    except Mistake as mistake:
        raise Mistake(mistake.message, hint) from None
    if text not in ("file", "variable"):
        raise Mistake("should be file or variable", hint)
    return text == "file"


_STATUS_SCHEMA: Final = {"type": "integer", "minimum": STATUS_MIN, "maximum": STATUS_MAX}
_FORM_SCHEMA: Final = {"enum": ["file", "variable"]}
_SECRET_SCHEMA: Final = {"type": "string", "pattern": VARIABLE_PATTERN}
_SECRET_FORM_SCHEMA: Final = {
    "type": "object",
    "patternProperties": {VARIABLE_PATTERN: _FORM_SCHEMA},
    "additionalProperties": False,
}

Status = Annotated[int, *kind(_status, _STATUS_SCHEMA)]
SecretForm = Annotated[bool, *kind(_secret_form, _FORM_SCHEMA)]
#: The short form of `secrets`, as editors see it.
SecretNames = Annotated[list[str], *kind(list, or_list({"anyOf": [_SECRET_SCHEMA, _SECRET_FORM_SCHEMA]}))]
