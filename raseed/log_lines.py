"""Log lines of every role: text for people, JSON for machines, to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_OWN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, event (the sentence), its template, the role's ids.

    The template is the sentence before its values went in: lines of one kind are counted by it.
    """

    def __init__(self, ids: Mapping[str, str]) -> None:
        super().__init__()
        self._ids = dict(ids)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; whatever `extra` held stands beside."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            "template": str(record.msg),
            **self._ids,
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logs(*, level: str, style: str, ids: Mapping[str, str]) -> None:
    """Send logs to stderr as text or as JSON lines. Raises ValueError for an unknown style or level."""
    if style not in ("text", "json"):
        raise ValueError(f"RASEED_LOG_FORMAT must be text or json, not {style!r}")
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonLines(ids))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its request lines carry addresses with ids
