"""Log lines: text for people, one JSON object a line for machines."""

import json
import logging

import pytest

from raseed.log_lines import JsonLines, set_up_logs


def make_record(text, *values, **extra):
    logger = logging.getLogger("meter_gateway.bus.bus_worker")
    return logger.makeRecord(logger.name, logging.WARNING, "f.py", 1, text, values, None, extra=extra)


def test_a_json_line_holds_the_sentence_its_template_and_the_ids():
    line = JsonLines({"role": "gateway"}).format(
        make_record("meter %s does not answer", "04012345678", bus="rtu-1")
    )
    told = json.loads(line)
    assert told["event"] == "meter 04012345678 does not answer"
    assert told["template"] == "meter %s does not answer"
    assert (told["role"], told["bus"], told["level"]) == ("gateway", "rtu-1", "WARNING")
    assert told["time"].endswith("+00:00")
    assert "\n" not in line


def test_arabic_stays_readable_and_a_line_break_does_not_break_the_line():
    line = JsonLines({}).format(make_record("الحي\nالأول"))
    assert "الحي" in line
    assert "\n" not in line


def test_a_traceback_travels_in_its_line():
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        record = make_record("fell")
        record.exc_info = (RuntimeError, error, error.__traceback__)
    told = json.loads(JsonLines({}).format(record))
    assert "RuntimeError: boom" in told["traceback"]


def test_an_unknown_style_is_named():
    with pytest.raises(ValueError, match="RASEED_LOG_FORMAT must be text or json"):
        set_up_logs(level="INFO", style="xml", ids={})
