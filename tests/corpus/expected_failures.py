"""What ours does not do yet, with the reason: the tests expect these to fail, and fail when one does not any more."""

EXPECTED_FAILURES: dict[tuple[str, str], str] = {}
