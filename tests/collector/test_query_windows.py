"""From `since` and `until` as people write them to whole buckets."""

import pytest

from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.errors import BadParameterError
from aiocop_collector.queries.windows import parse_window

NOW_S = 1_769_862_896.25  # 2026-01-31T12:34:56.25Z


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, ("2026-01-30T12:00:00Z", "2026-01-31T13:00:00Z", 3600)),
        ("30s", None, ("2026-01-31T12:34:00Z", "2026-01-31T12:35:00Z", 60)),
        ("60s", None, ("2026-01-31T12:33:00Z", "2026-01-31T12:35:00Z", 60)),
        ("15m", None, ("2026-01-31T12:19:00Z", "2026-01-31T12:35:00Z", 60)),
        ("1439m", None, ("2026-01-30T12:35:00Z", "2026-01-31T12:35:00Z", 60)),
        ("24h", None, ("2026-01-30T12:00:00Z", "2026-01-31T13:00:00Z", 3600)),
        ("7d", "1d", ("2026-01-24T12:00:00Z", "2026-01-30T13:00:00Z", 3600)),
        ("1w", None, ("2026-01-24T12:00:00Z", "2026-01-31T13:00:00Z", 3600)),
        ("13d", None, ("2026-01-18T12:00:00Z", "2026-01-31T13:00:00Z", 3600)),
        ("14d", None, ("2026-01-17T00:00:00Z", "2026-02-01T00:00:00Z", 86_400)),
        # Minutes are kept for three days, hours for fourteen: an older window reads what there still is.
        ("71h", "70h", ("2026-01-28T13:34:00Z", "2026-01-28T14:35:00Z", 60)),
        ("73h", "72h", ("2026-01-28T11:00:00Z", "2026-01-28T13:00:00Z", 3600)),
        ("15d", "14d", ("2026-01-16T00:00:00Z", "2026-01-18T00:00:00Z", 86_400)),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:30:00Z", ("2026-01-31T12:00:00Z", "2026-01-31T12:30:00Z", 60)),
        ("2026-01-31T12:00:59.5Z", "2026-01-31t12:30:00.001z", ("2026-01-31T12:00:00Z", "2026-01-31T12:31:00Z", 60)),
        ("2026-01-31T13:00:00+01:00", None, ("2026-01-31T12:00:00Z", "2026-01-31T12:35:00Z", 60)),
        ("2026-01-31 06:30:00-05:30", None, ("2026-01-31T12:00:00Z", "2026-01-31T12:35:00Z", 60)),
        (None, "2026-01-20T10:20:00Z", ("2026-01-19T10:00:00Z", "2026-01-20T11:00:00Z", 3600)),
        ("15m", "2026-01-31T12:50:00Z", ("2026-01-31T12:19:00Z", "2026-01-31T12:50:00Z", 60)),
    ],
)
def test_a_window_is_what_was_asked_widened_to_buckets(since, until, expected):
    window = parse_window(since, until, NOW_S, {})
    shown = (to_rfc3339(window.since_s * 1000), to_rfc3339(window.until_s * 1000), window.resolution.seconds)
    assert shown == expected
    assert window.bucket_starts_s[0] == window.since_s
    assert window.bucket_starts_s[-1] + window.resolution.seconds == window.until_s


@pytest.mark.parametrize(
    ("since", "until", "parameter", "says"),
    [
        ("yesterday", None, "since", "is not a time"),
        ("", None, "since", "is not a time"),
        ("15", None, "since", "is not a time"),
        ("1.5h", None, "since", "is not a time"),
        ("-1h", None, "since", "is not a time"),
        ("15m ", None, "since", "is not a time"),
        ("٣h", None, "since", "is not a time"),
        ("2026-01-31", None, "since", "is not a time"),
        ("2026-01-31T12:00:00", None, "since", "is not a time"),
        ("2026-01-31T12:00:00 01:00", None, "since", "%2B"),
        ("2026-02-30T12:00:00Z", None, "since", "not a time that exists"),
        ("2026-01-31T12:00:00+25:00", None, "since", "not a time that exists"),
        ("0001-01-01T00:00:00+23:00", None, "since", "before 1970"),
        ("999999999999w", None, "since", "before 1970"),
        (None, "9999-12-31T23:59:59Z", "until", "more than a year from now"),
        (None, "later", "until", "is not a time"),
        ("0m", None, "since", "not before until"),
        ("1h", "2h", "since", "not before until"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", "since", "not before until"),
    ],
)
def test_a_time_that_cannot_be_used_is_named(since, until, parameter, says):
    with pytest.raises(BadParameterError) as caught:
        parse_window(since, until, NOW_S, {})
    assert caught.value.parameter == parameter
    assert says in caught.value.message
