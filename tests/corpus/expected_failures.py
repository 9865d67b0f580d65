"""What ours does not do yet, with the reason: the tests expect these to fail, and fail when one does not any more."""

BOTH = ("asyncio", "uvloop")

EXPECTED_FAILURES: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [(f"interpreter.{name}", loop) for loop in BOTH for name in ("starved_host", "stopped_in_a_slice")],
        "time that the host took is blamed on the line at which it took it",
    ),
    **dict.fromkeys(
        [
            (f"interpreter.{name}", loop)
            for loop in BOTH
            for name in ("regular_expression_elsewhere", "sorting_elsewhere", "elsewhere_during_a_slice")
        ],
        "the line of the thread that holds the GIL is not named",
    ),
    **dict.fromkeys(
        [("catalogue.os_spawn", loop) for loop in BOTH],
        "os.spawnv is seen as the os.fork and os.waitpid in it: on POSIX it has no audit event, and no wrapper",
    ),
    ("interpreter.long_turn", "uvloop"): "a long turn of a uvloop loop is not seen",
    ("protocols.data_received_computes", "uvloop"): (
        "a protocol callback of a uvloop transport is seen only from its first audit event on, and this one has none"
    ),
}

FAILS_UNDER_LOAD: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [("files.fsync", loop) for loop in BOTH],
        "on a busy host the measured time of os.fsync is called starved",
    ),
    **dict.fromkeys(
        [
            (name, loop)
            for loop in BOTH
            for name in ("innocents.first_subprocess", "innocents.subprocesses", "protocols.pipe_data_received")
        ],
        "on a busy host starting a program really freezes the loop for longer than the threshold",
    ),
}
"""These may fail or not, and are marked so that they don't hide others."""
