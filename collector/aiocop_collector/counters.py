"""What the collector counts about its own intake, by name; shown by /readyz and /metrics.

Names in use:
    connections                     streams accepted
    reports_unix, reports_udp       reports taken in, duplicates included
    bytes_received                  bytes of the messages taken in
    refused_{reason}                messages that were not used: malformed, oversized, unknown_version, unexpected;
                                    datagrams: unsealed, forged, stale (with a key), sealed (without one)
    datagrams_dropped_by_kernel     that found the sockets' buffers full; they are among the lost, by sequence
    hello_timeouts                  streams that never said who they are
    heartbeats_refused              heartbeats not kept, because there were too many; their agents' stalls show only by
                                    the agents' own messages
    heartbeats_unusable             heartbeats of an unknown layout, or without a lock
    agents_died                     processes that ended without a farewell
    slow_readers                    streams cut because their agent did not read its acknowledgements
    clocks_clamped                  reports dated more than a day ahead of the collector's clock, stored as of now
    sites_unknown                   sites counted before their definition arrived
    reports_rejected                reports the database would never take; their stream was ended
    rows_pruned                     deleted for their age, or because the store was too large
    commits, commits_failed         transactions; the failed ones were tried again
"""


class Counters:
    """Totals since the process started. Written and read on the event loop's thread only."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        self._totals[name] = self._totals.get(name, 0) + amount

    def totals(self) -> dict[str, int]:
        """A copy, sorted by name."""
        return dict(sorted(self._totals.items()))
