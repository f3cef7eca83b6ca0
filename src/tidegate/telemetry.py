"""Structured logs of the control plane: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from tidegate.core import roles


def configure(*cleaning: structlog.typing.Processor) -> None:
    """Log to standard error; called once, by the daemon. `cleaning`: what takes values out of each event."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *cleaning,
            structlog.processors.JSONRenderer(),
            _redacted,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _redacted(_logger: Any, _method: str, line: Any) -> str:
    """The whole line, as it goes out: wherever a token stood in it, nobody can use it."""
    return roles.redacted(str(line))


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry the name of the part that speaks."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return bound
