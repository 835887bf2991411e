"""Logs: one line per event on standard error, as JSON or for people.

Rules: the message is the event's name, everything else travels in `extra`; an exception becomes fields of the same line
in JSON, and follows as a traceback for people.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

# What every record carries; the rest came in `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"


class LogFormat(StrEnum):
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logging(form: LogFormat, level: LogLevel, *, colour: bool = False) -> None:
    """Replace what was configured: everything goes to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else HumanFormatter(colour=colour))
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    # The servers' own remarks are about connections we close on purpose, the AWS libraries' about credentials they look for.
    for name in ("uvicorn", "uvicorn.error", "asyncio", "botocore", "aiobotocore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.CRITICAL if name.startswith("uvicorn") else logging.WARNING)


def log_colour() -> bool:
    """As rich decides it for everything else: NO_COLOR, FORCE_COLOR, a terminal."""
    return not os.environ.get("NO_COLOR") and (bool(os.environ.get("FORCE_COLOR")) or sys.stderr.isatty())


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """`{"at": ..., "level": ..., "logger": ..., "event": ..., <fields>}`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """`12:00:00.123 INFO    event  name=value name=value`"""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - the reader's own time
        fields = " ".join(f"{name}={_shown(value)}" for name, value in fields_of(record).items())
        level = f"{record.levelname:<7}"
        if self._colour:
            at, fields = f"{_DIM}{at}{_RESET}", f"{_DIM}{fields}{_RESET}"
            level = f"{_COLOURS.get(record.levelname, '')}{level}{_RESET}"
        line = f"{at} {level} {record.getMessage()}" + (f"  {fields}" if fields else "")
        if record.exc_info is not None and record.exc_info[0] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _shown(value: Any) -> str:
    """Quoted when it would not be read as one word."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n\t') else text
