"""What ours does not do yet, with the reason: the tests expect these to fail, and fail when one does not any more."""

BOTH = ("asyncio", "uvloop")

EXPECTED_FAILURES: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [(name, loop) for loop in BOTH for name in ("interpreter.starved_host", "interpreter.stopped_in_a_slice")],
        "time the host took is blamed on the line at which it took it",
    ),
    **dict.fromkeys(
        [
            (f"interpreter.{name}", loop)
            for loop in BOTH
            for name in ("regular_expression_elsewhere", "sorting_elsewhere", "elsewhere_during_a_slice")
        ],
        "the thread that holds the GIL is not named",
    ),
}
