"""What one value of tidegate.yaml means: durations, sizes, shares, names, hosts, commands.

Hides the spelling. Each kind is one annotated type: how it is read, which schema an editor gets, what the
message says when it is wrong. Messages are for the person who wrote the file: what would be right, with an
example, and never a word of the library.

Invariants: what comes out is safe to hand on: bounded in length and in value, free of NUL and of half
characters, hosts and paths made only of letters that a proxy's configuration cannot misread.

Neighbours: `reading` makes the scalars, `definition` uses these types, `gate_values` has more of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from tidegate.core import sequential
from tidegate.core.model import FULL_EXPOSURE, UserIdentity
from tidegate.core.policy import LittleEvidence
from tidegate.core.spec import CATCH_ALL
from tidegate.manifest.reading import Scalar, shortened

_Value = TypeVar("_Value")

NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,39}$"  # 40 letters: names of groups and servers are made of four
NEED_PATTERN: Final = r"^[a-z][a-z0-9-]{0,39}(/[a-z][a-z0-9-]{0,39})?$"
VARIABLE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
_SIZE_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
_SHARE_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,2})?%$"
_FINE_SHARE_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,4})?%$"
_COUNT_PATTERN = r"^(0|[1-9][0-9]{0,8})$"
_NUMBER_PATTERN = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?$"
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_PATTERN: Final = rf"^(\*|{_LABEL}(\.{_LABEL})*)$"
# A part of a URL without quotes, spaces, `$` and `#`: it stands in a line of the proxy's configuration.
PATH_PATTERN: Final = r"^/[A-Za-z0-9._~%/?&=+,:;@!*-]{0,255}$"

_SECONDS = {
    unit: Decimal(text)
    for unit, text in (("ms", "0.001"), ("s", "1"), ("m", "60"), ("h", "3600"), ("d", "86400"))
}
_BYTES = {
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
    "KB": 1000,
}

DAY_S: Final = 86_400
DURATION_S_MAX: Final = 365 * DAY_S  # longer ones are slips of the unit
CHECK_S_MIN: Final = 0.1  # oftener would load the service more than its users do
MEMORY_BYTES_MIN: Final = 1_000_000  # less starts no program: a forgotten unit
HOST_LENGTH_MAX: Final = 253
COMMAND_LENGTH_MAX: Final = 8_192
TEXT_LENGTH_MAX: Final = 65_536  # half of what Linux takes for one variable
ITEMS_MAX: Final = 50

_OTHER_FLAGS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_SHELL_WORDS = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "<<", "2>", "2>&1", "&>"})
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_SHELL_HINT = 'no shell reads it; if you need one: [sh, -c, "..."]'


class Mistake(ValueError):
    """What is wrong with one value, and what would be right."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def kind(read: Callable[[Any], _Value], schema: dict[str, Any]) -> tuple[PlainValidator, WithJsonSchema]:
    """How pydantic reads a kind of value, and how an editor's schema shows it."""
    return PlainValidator(read), WithJsonSchema(schema)


def text_of(value: Any, wanted: str) -> str:
    """The text of one value; `wanted` completes "should be ...". Defaults come as plain values."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if not isinstance(value, Scalar):
        raise Mistake(f"should be {wanted}, not {'a list' if isinstance(value, list) else 'a mapping'}")
    if value.empty:
        raise Mistake(f"has no value: it should be {wanted}")
    return value.text


def not_this(wanted: str, text: str, hint: str = "") -> Mistake:
    """What is wrong with a text that is of no known form."""
    return Mistake(f"should be {wanted}, not {shortened(text)!r}", hint)


def matched(value: Any, pattern: str, wanted: str) -> str:
    """The text, if it is of this form."""
    text = text_of(value, wanted)
    if not re.fullmatch(pattern, text, re.ASCII):
        raise not_this(wanted, text)
    return text


def unquoted(value: Any, pattern: str, wanted: str) -> str:
    """Numbers and true/false: in quotes they are text, for every other program that reads the file."""
    text = matched(value, pattern, wanted)
    if isinstance(value, Scalar) and not value.plain:
        raise Mistake(f"should be {wanted}, without quotes")
    return text


def _number_and_unit(text: str) -> tuple[Decimal, str]:
    number = text.rstrip("%abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return Decimal(number), text[len(number) :]


# --- time, size, share -----------------------------------------------------------------------------


def duration_s(value: Any, wanted: str) -> float:
    """Of a number and its unit."""
    number, unit = _number_and_unit(matched(value, _DURATION_PATTERN, wanted))
    return float(number * _SECONDS[unit])


def _duration(value: Any) -> float:
    seconds = duration_s(value, "a duration such as 500ms, 30s, 2m, 1h or 1d")
    if seconds > DURATION_S_MAX:
        raise Mistake("should be at most 365d")
    return seconds


def _check_time(value: Any) -> float:
    seconds = duration_s(value, "a duration such as 500ms, 2s or 1m")
    if not CHECK_S_MIN <= seconds <= DAY_S:
        raise Mistake("should be between 100ms and 1d")
    return seconds


def _hold(value: Any) -> float | None:
    """Seconds; None: until somebody promotes."""
    if text_of(value, "a duration such as 2m, or manual") == "manual":
        return None
    seconds = duration_s(value, "a duration such as 2m, or manual")
    if seconds > DURATION_S_MAX:
        raise Mistake("should be at most 365d", "manual waits until somebody promotes")
    return seconds


def _memory(value: Any) -> int:
    number, unit = _number_and_unit(matched(value, _SIZE_PATTERN, "a size such as 512MB or 1GiB"))
    size_bytes = int(number * _BYTES[unit])
    if size_bytes < MEMORY_BYTES_MIN:
        raise Mistake("should be at least 1MB")
    return size_bytes


def _share(value: Any) -> int:
    """Basis points."""
    wanted = "a percentage such as 5% or 0.5%, in steps of 0.01%"
    number, _ = _number_and_unit(matched(value, _SHARE_PATTERN, wanted))
    share_bps = int(number * 100)
    if not 1 <= share_bps <= FULL_EXPOSURE:
        raise Mistake("should be at least 0.01% and less than 100%")
    return share_bps


DURATION_SCHEMA: Final = {"type": "string", "pattern": _DURATION_PATTERN}
_SHARE_SCHEMA: Final = {"type": "string", "pattern": _SHARE_PATTERN}

Duration = Annotated[float, *kind(_duration, DURATION_SCHEMA)]
CheckTime = Annotated[float, *kind(_check_time, DURATION_SCHEMA)]
Hold = Annotated[float | None, *kind(_hold, {"type": "string", "pattern": rf"^manual$|{_DURATION_PATTERN}"})]
Memory = Annotated[int, *kind(_memory, {"type": "string", "pattern": _SIZE_PATTERN})]
Share = Annotated[int, *kind(_share, _SHARE_SCHEMA)]


# --- numbers and words -----------------------------------------------------------------------------


def count_up_to(maximum: int) -> Callable[[Any], int]:
    """Reads whole numbers from 1."""

    def read(value: Any) -> int:
        number = int(unquoted(value, _COUNT_PATTERN, "a whole number such as 2"))
        if not 1 <= number <= maximum:
            raise Mistake(f"should be between 1 and {maximum}")
        return number

    return read


def count_schema(maximum: int) -> dict[str, Any]:
    """What an editor sees of `count_up_to`."""
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def _cpus(value: Any) -> float:
    number = float(unquoted(value, _NUMBER_PATTERN, "a number such as 1.5"))
    if not 0 < number <= CPUS_MAX:
        raise Mistake(f"should be more than 0 and at most {CPUS_MAX}")
    return number


def _flag(value: Any) -> bool:
    text = text_of(value, "true or false").lower()
    if text in _OTHER_FLAGS:
        raise Mistake(f"should be true or false, not {text!r}", f"did you mean {_OTHER_FLAGS[text]}?")
    return unquoted(value, r"^(true|false)$", "true or false") == "true"


def _true(value: Any) -> bool:
    if not _flag(value):
        raise Mistake("has only one value, true", "leave it out for no check of the port")
    return True


def _identity(value: Any) -> UserIdentity:
    return UserIdentity(matched(value, r"^(cookie|address)$", "cookie or address"))


CPUS_MAX: Final = 1024
INSTANCES_MAX: Final = 100  # of one service on one machine: each is a process with a port
LIMIT_MAX: Final = 10_000_000

Instances = Annotated[int, *kind(count_up_to(INSTANCES_MAX), count_schema(INSTANCES_MAX))]
Limit = Annotated[int, *kind(count_up_to(LIMIT_MAX), count_schema(LIMIT_MAX))]
Cpus = Annotated[float, *kind(_cpus, {"type": "number", "exclusiveMinimum": 0, "maximum": CPUS_MAX})]
Flag = Annotated[bool, *kind(_flag, {"type": "boolean"})]
OnlyTrue = Annotated[bool, *kind(_true, {"const": True})]
Identity = Annotated[UserIdentity, *kind(_identity, {"enum": ["cookie", "address"]})]


# --- how a canary is judged ------------------------------------------------------------------------
#
# The bounds are those of `core.policy`, in the units of the file: a test holds them together.

RATIO_MAX: Final = 100  # more is no margin, but a judge that is switched off without saying so
#: Longer ones are not told apart: a limit beyond them would never be reached.
LATENCY_S_MAX: Final = int(sequential.bucket_edge_s(sequential.BUCKETS - 1))


def _fraction(value: Any, wanted: str) -> float:
    number, _ = _number_and_unit(matched(value, _FINE_SHARE_PATTERN, wanted))
    return float(number / 100)


def _chance(value: Any) -> float:
    chance = _fraction(value, "a percentage such as 1% or 0.5%")
    if not 0 < chance <= 0.5:  # noqa: PLR2004 - as in the sentence
        raise Mistake("should be more than 0% and at most 50%", "analysis: off aborts for nothing")
    return chance


def _small_share(value: Any) -> float:
    share = _fraction(value, "a percentage such as 0.1% or 0.002%")
    if share >= 1:
        raise Mistake("should be less than 100%")
    return share


def _share_limit(value: Any) -> float | None:
    wanted = "a percentage such as 1% or 0.1%, or off"
    if text_of(value, wanted) == "off":
        return None
    share = _fraction(value, wanted)
    if not 0 < share < 1:
        raise Mistake("should be more than 0% and less than 100%", "off is no limit")
    return share


def _latency_limit(value: Any) -> float | None:
    """Milliseconds."""
    wanted = "a duration such as 500ms or 2s, or off"
    if text_of(value, wanted) == "off":
        return None
    seconds = duration_s(value, wanted)
    if not 0.001 <= seconds <= LATENCY_S_MAX:  # noqa: PLR2004 - as in the sentence
        raise Mistake(f"should be between 1ms and {LATENCY_S_MAX}s", "off is no limit")
    return seconds * 1000


def _ratio(value: Any) -> float:
    return float(_exact_ratio(value))


def _overdue(value: Any) -> float | None:
    """Seconds; None: from what the live release needed before the rollout."""
    wanted = "a duration such as 5s or 1m, or auto"
    if text_of(value, wanted) == "auto":
        return None
    seconds = duration_s(value, wanted)
    if not CHECK_S_MIN <= seconds <= DAY_S:
        raise Mistake("should be between 100ms and 1d")
    return seconds


def _exact_ratio(value: Any) -> Decimal:
    text = text_of(value, "a ratio such as 1.10")
    if re.fullmatch(_FINE_SHARE_PATTERN, text, re.ASCII):
        ratio = 1 + Decimal(text.removesuffix("%")) / 100
        raise Mistake(f"should be a ratio such as 1.10, not {text!r}", f"did you mean {ratio.normalize():f}?")
    ratio = Decimal(unquoted(value, _NUMBER_PATTERN, "a ratio such as 1.10"))
    if not 1 <= ratio <= RATIO_MAX:
        raise Mistake(f"should be at least 1 and at most {RATIO_MAX}", "1.10 permits a tenth more")
    return ratio


def _latency_steps(value: Any) -> int:
    """Fewest steps of the histogram that are at least the ratio: what is written is still good."""
    ratio, step = _exact_ratio(value), Decimal(str(sequential.BUCKET_RATIO))
    steps, reached = 0, Decimal(1)
    while reached < ratio:
        steps, reached = steps + 1, reached * step
    return steps


def _requests(value: Any) -> int:
    number = int(unquoted(value, _COUNT_PATTERN, "a whole number such as 20"))
    if number > LIMIT_MAX:
        raise Mistake(f"should be at most {LIMIT_MAX}")
    return number


def _little_evidence(value: Any) -> LittleEvidence:
    return LittleEvidence(matched(value, r"^(go-on|wait|ask)$", "go-on, wait or ask"))


#: YAML readers of editors take `off` for false.
_OFF_SCHEMA: Final = {"enum": ["off", False]}
_FINE_SHARE_SCHEMA: Final = {"type": "string", "pattern": _FINE_SHARE_PATTERN}
_RATIO_SCHEMA: Final = {"type": "number", "minimum": 1, "maximum": RATIO_MAX}

Chance = Annotated[float, *kind(_chance, _FINE_SHARE_SCHEMA)]
SmallShare = Annotated[float, *kind(_small_share, _FINE_SHARE_SCHEMA)]
ShareLimit = Annotated[float | None, *kind(_share_limit, {"anyOf": [_FINE_SHARE_SCHEMA, _OFF_SCHEMA]})]
LatencyLimit = Annotated[float | None, *kind(_latency_limit, {"anyOf": [DURATION_SCHEMA, _OFF_SCHEMA]})]
Overdue = Annotated[
    float | None, *kind(_overdue, {"type": "string", "pattern": rf"^auto$|{_DURATION_PATTERN}"})
]
Ratio = Annotated[float, *kind(_ratio, _RATIO_SCHEMA)]
LatencySteps = Annotated[int, *kind(_latency_steps, _RATIO_SCHEMA)]
Requests = Annotated[int, *kind(_requests, {"type": "integer", "minimum": 0, "maximum": LIMIT_MAX})]
OnLittleEvidence = Annotated[LittleEvidence, *kind(_little_evidence, {"enum": ["go-on", "wait", "ask"]})]


# --- names, hosts, paths ---------------------------------------------------------------------------


def name_from(text: str) -> str:
    """A valid name that resembles the text: of a folder, for example."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")
    return words[:40].rstrip("-") or "app"


def _name(value: Any) -> str:
    wanted = "a name: a small letter, then small letters, digits and -, at most 40"
    text = text_of(value, wanted)
    if not re.fullmatch(NAME_PATTERN, text, re.ASCII):
        raise Mistake(f"should be {wanted}, not {shortened(text)!r}", f"for example {name_from(text[:100])}")
    return text


def _variable(value: Any) -> str:
    return matched(
        value, VARIABLE_PATTERN, "the name of a variable: letters, digits and _, such as LOG_LEVEL"
    )


def listed(value: Any, read: Callable[[Any], str], wanted: str) -> tuple[str, ...]:
    """One value or a list of them, each once."""
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or len(items) > ITEMS_MAX:
        raise Mistake(f"should be {wanted}" + ("" if isinstance(value, dict) else f", at most {ITEMS_MAX}"))
    found: list[str] = []
    for item in items:
        text = read(item)
        if text in found:
            raise Mistake(f"names {text} twice")
        found.append(text)
    return tuple(found)


def _names(value: Any) -> tuple[str, ...]:
    return listed(value, _name, "the name of a service, or a list of them")


def _need(value: Any) -> str:
    """A service of this app, or `app/service` of another one."""
    wanted = "the name of a service, or app/service of another app"
    text = text_of(value, wanted)
    if "/" not in text:
        return _name(value)
    parts = text.split("/")
    if len(parts) != _FOREIGN_PARTS or not all(re.fullmatch(NAME_PATTERN, one, re.ASCII) for one in parts):
        close = "/".join(name_from(one[:100]) for one in parts[:_FOREIGN_PARTS])
        raise Mistake(f"should be {wanted}, not {shortened(text)!r}", f"for example {close}")
    return text


def _needs(value: Any) -> tuple[str, ...]:
    return listed(value, _need, "the name of a service, or a list of them")


def _hosts(value: Any) -> tuple[str, ...]:
    return listed(value, _host, "a host name such as shop.example.com, or a list of them")


def _host(value: Any) -> str:
    wanted = "a host name such as shop.example.com"
    text = text_of(value, wanted).lower()
    if len(text) > HOST_LENGTH_MAX or not re.fullmatch(HOST_PATTERN, text, re.ASCII):
        raise Mistake(f"should be {wanted}, not {shortened(text)!r}", _host_hint(text))
    return text


def _host_hint(text: str) -> str:
    bare = re.sub(r"^[a-z]+://|[:/].*$", "", re.sub(r"^[a-z]+://", "", text))
    if bare != text and re.fullmatch(HOST_PATTERN, bare, re.ASCII):
        return f"the host alone, without scheme, port and path: {bare}"
    if CATCH_ALL in text:
        return 'name each host, or "*" alone for every host that nobody else has'
    return "write international names in their xn-- form" if not text.isascii() else ""


def _path(value: Any) -> str:
    wanted = "a path such as /healthz"
    text = text_of(value, wanted)
    if re.fullmatch(PATH_PATTERN, text, re.ASCII):
        return text
    hint = ""
    if re.fullmatch(PATH_PATTERN, f"/{text}", re.ASCII):
        hint = "did you mean {tcp: true}?" if text == "tcp" else f"did you mean /{shortened(text)}?"
    raise Mistake(f"should be {wanted}, not {shortened(text)!r}", hint)


def _folder(value: Any) -> str:
    """Relative to the manifest, inside its folder, without a slash at the end."""
    wanted = "a folder such as dist/"
    text = printable(text_of(value, wanted), wanted)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith(("/", "~")) or ".." in parts or "\\" in text:
        raise Mistake(f"should be {wanted} inside this one, not {shortened(text)!r}")
    return "/".join(parts) or "."


def printable(text: str, wanted: str) -> str:
    """The text, if a terminal can show it."""
    if not text.isprintable() or len(text) > COMMAND_LENGTH_MAX:
        raise not_this(wanted, text)
    return text


_FOREIGN_PARTS = 2  # app and service
_NEED_SCHEMA: Final = {"type": "string", "pattern": NEED_PATTERN}
_NAME_SCHEMA: Final = {"type": "string", "pattern": NAME_PATTERN}
_HOST_SCHEMA: Final = {"type": "string", "pattern": HOST_PATTERN.replace("a-z", "A-Za-z")}


def or_list(schema: dict[str, Any], **limits: int) -> dict[str, Any]:
    """What an editor sees of `listed`."""
    return {"anyOf": [schema, {"type": "array", "items": schema, "maxItems": ITEMS_MAX, **limits}]}


Name = Annotated[str, *kind(_name, _NAME_SCHEMA)]
Variable = Annotated[str, *kind(_variable, {"type": "string", "pattern": VARIABLE_PATTERN})]
Names = Annotated[tuple[str, ...], *kind(_names, or_list(_NAME_SCHEMA))]
Needs = Annotated[tuple[str, ...], *kind(_needs, or_list(_NEED_SCHEMA))]
Hosts = Annotated[tuple[str, ...], *kind(_hosts, or_list(_HOST_SCHEMA))]
HttpPath = Annotated[str, *kind(_path, {"type": "string", "pattern": PATH_PATTERN})]
Folder = Annotated[str, *kind(_folder, {"type": "string", "minLength": 1})]


# --- commands and configuration --------------------------------------------------------------------


def _command(value: Any) -> tuple[str, ...]:
    """The argv of a command in one string or in a list of words."""
    wanted = "a command such as ./bin/web --fast, or a list of its words"
    if isinstance(value, list):
        words = tuple(_clean(text_of(item, "one word"), wanted) for item in value)
    else:
        words = _split(_clean(text_of(value, wanted), wanted))
    if not words or not words[0]:
        raise Mistake(f"is empty: it should be {wanted}")
    if sum(len(word) + 1 for word in words) > COMMAND_LENGTH_MAX + 1:
        raise Mistake(f"is longer than {COMMAND_LENGTH_MAX} letters", "put it into a script")
    return words


def _shell_line(value: Any) -> str:
    """A line for the user's own shell, exactly as written."""
    wanted = "a command line such as make dist"
    text = _clean(text_of(value, wanted), wanted)
    if not text.strip():
        raise Mistake(f"is empty: it should be {wanted}")
    return text


def _clean(text: str, wanted: str) -> str:
    """What the operating system can take as an argument."""
    if "\0" in text or len(text) > COMMAND_LENGTH_MAX:
        raise not_this(wanted, text)
    return text


def _split(text: str) -> tuple[str, ...]:
    """Words as a shell would see them; whatever only a shell could do is a mistake, not an argument."""
    try:
        words = shlex.split(text)
        written = shlex.split(text, posix=False)  # keeps quotes, so that '|' in quotes is told from a pipe
    except ValueError as error:
        raise Mistake("opens a quote that is not closed") from error
    for word in written:
        if word in _SHELL_WORDS or (word.endswith(";") and word[0] not in "'\""):
            raise Mistake(f"has {shortened(word)!r} in it, which only a shell understands", _SHELL_HINT)
    if words and _ASSIGNMENT.match(words[0]):
        raise Mistake(f"begins with {shortened(words[0])!r}", "set variables under config of an environment")
    return tuple(words)


def _config_text(value: Any) -> str:
    """The value as it is written: `no` stays no, 1.10 stays 1.10. Never repeated in a message."""
    text = text_of(value, 'text, a number or true/false; "" is the empty text')
    if "\0" in text:
        raise Mistake("should be text without NUL characters")
    if len(text) > TEXT_LENGTH_MAX:
        raise Mistake(
            f"should be at most {TEXT_LENGTH_MAX} letters long", "put it into a file of the package"
        )
    return text


_TEXT_SCHEMA: Final = {"type": ["string", "number", "boolean"]}

Command = Annotated[
    tuple[str, ...],
    *kind(
        _command,
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1},
            ]
        },
    ),
]
ShellLine = Annotated[str, *kind(_shell_line, {"type": "string", "minLength": 1})]
ConfigText = Annotated[str, *kind(_config_text, _TEXT_SCHEMA)]
