"""Structured logs of the control plane: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys

import structlog


def configure() -> None:
    """Log to standard error; called once, by the daemon."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry the name of the part that speaks."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return bound
