"""How fast collectors turn reports into committed rows: `python benchmarks/ingest.py [--agents N] [--reports N] …`.

A real collector process with SQLite, or with `--postgres 1 2 4` so many of them on one PostgreSQL, is fed over unix
streams (until every report is acknowledged) and, on SQLite, over UDP (until all that arrived is committed). Reports are
encoded beforehand, so what is measured is the collector. Printed per transport: reports and represented blocking calls
per second of wall time, the collectors' CPU time per million of these and per delta, how long commits took, their
largest memory, and what was lost. With `--services` each agent is a service of its own: nobody's rows are merged.

With `--rate N` one collector is not fed as fast as it can but as a fleet would: so many represented calls each second,
over unix, by agents that are services of their own and report each second half of their sites. Printed: how long a
report waits until it is acknowledged, which is after its commit, the collector's CPU time and largest memory. With
`--database URL` on a store that is there already (see queries.py --keep; it is changed by that).
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.processes import cpu_seconds, peak_mib
from prometheus_client.parser import text_string_to_metric_families
from tests.support.collector import (
    CollectorProcess,
    DatagramPeer,
    StreamPeer,
    make_identity,
    make_report,
    make_site,
    run_collector,
)
from tests.support.postgres_server import find_binaries, run_server

from aiocop_wire import Datagram, Define, Identity, Report, SiteDelta, encode, frame

CALLS_PER_DELTA = 20


def make_reports(count: int, sites: int) -> list[Report]:
    deltas = [SiteDelta(n, CALLS_PER_DELTA, 1, 90_000, 40_000, (3, 15, 12, 4, 26, 1)) for n in range(1, sites + 1)]
    return [make_report(sequence, *deltas) for sequence in range(1, count + 1)]


def identity_of(number: int, *, apart: bool) -> Identity:
    return make_identity(f"service-{number:03}", environment="prod") if apart else make_identity()


def feed_stream(
    collectors: list[CollectorProcess], agents: int, reports: list[Report], sites: int, *, apart: bool
) -> int:
    define = frame(encode(Define(tuple(make_site(number) for number in range(1, sites + 1)))))
    data = define + b"".join(frame(encode(report)) for report in reports)

    def run_agent(number: int) -> None:
        with StreamPeer(collectors[number % len(collectors)].socket_path) as peer:
            peer.greet(identity_of(number, apart=apart))
            sender = threading.Thread(target=peer.send_bytes, args=(data,))
            sender.start()
            while peer.receive().sequence < len(reports):
                pass
            sender.join()

    threads = [threading.Thread(target=run_agent, args=(number,)) for number in range(agents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return agents * len(reports)


def feed_datagrams(
    collectors: list[CollectorProcess], agents: int, reports: list[Report], sites: int, *, apart: bool
) -> int:
    (collector,) = collectors
    identities = [identity_of(number, apart=apart) for number in range(agents)]
    define = Define(tuple(make_site(number) for number in range(1, sites + 1)))
    with DatagramPeer(collector.udp) as peer:
        for number, report in enumerate(reports):
            for identity in identities:
                peer.send_bytes(encode(Datagram(identity, report, define if number == 0 else Define())))
        known, before = -1, -2
        while known != before or known <= 0:  # until a second brings nothing more
            time.sleep(1.0)
            before, known = known, received(collector)
    return known


def feed_steadily(collector: CollectorProcess, options: argparse.Namespace) -> list[float]:
    """How long each report took to be acknowledged, in milliseconds."""
    reported = options.rate // CALLS_PER_DELTA // options.agents
    sites = range(1, 2 * reported + 1)
    waits_ms: list[float] = []
    began_s = time.monotonic() + 1.0

    def run_agent(number: int) -> None:
        with StreamPeer(collector.socket_path) as peer:
            peer.greet(identity_of(number, apart=True))
            peer.send(Define(tuple(make_site(site) for site in sites)))
            for sequence in itertools.count(1):
                due_s = began_s + sequence + number / options.agents
                if due_s > began_s + options.seconds:
                    return
                time.sleep(max(0.0, due_s - time.monotonic()))
                half = sites[sequence % 2 :: 2]
                deltas = [SiteDelta(n, CALLS_PER_DELTA, 1, 90_000, 40_000, (3, 15, 12, 4, 26, 1)) for n in half]
                data = frame(encode(make_report(sequence, *deltas)))
                sent_s = time.monotonic()
                peer.send_bytes(data)
                peer.wait_for_ack(sequence)
                waits_ms.append((time.monotonic() - sent_s) * 1000)

    threads = [threading.Thread(target=run_agent, args=(number,)) for number in range(options.agents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits_ms


def measure_steadily(options: argparse.Namespace) -> None:
    """Feed one collector at a given rate."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--database", options.database) if options.database else ()
        with run_collector(Path(folder), *arguments) as collector:
            cpu_before_s, started_s = cpu_seconds(collector.pid), time.perf_counter()
            waits_ms = sorted(feed_steadily(collector, options))
            cpu_s, wall_s = cpu_seconds(collector.pid) - cpu_before_s, time.perf_counter() - started_s
            commits = collector.counters()["commits"]
            print(
                f"{options.rate:,} represented calls/s of {2 * options.rate // CALLS_PER_DELTA:,} sites of "
                f"{options.agents} services for {options.seconds} s: {len(waits_ms)} reports, {commits} commits, "
                f"{commit_times(collector)}; acknowledged after {statistics.median(waits_ms):.0f} ms (p95 "
                f"{waits_ms[len(waits_ms) * 95 // 100]:.0f}, longest {waits_ms[-1]:.0f}); "
                f"{cpu_s / wall_s:.2f} of a core; peak {peak_mib(collector.pid):.0f} MiB"
            )


def commit_times(collector: CollectorProcess) -> str:
    """From the collector's own histogram."""
    metrics = {family.name: family for family in text_string_to_metric_families(collector.http.get("/metrics").text)}
    samples = metrics["aiocop_collector_commit_seconds"].samples
    buckets = [(float(one.labels["le"]), one.value) for one in samples if one.name.endswith("_bucket")]
    (total_s,) = [one.value for one in samples if one.name.endswith("_sum")]
    count = buckets[-1][1]
    longest_s = next(bound_s for bound_s, below in buckets if below == count)
    return f"{total_s / count * 1000:.0f} ms each and none above {longest_s * 1000:.0f}"


def received(collector: CollectorProcess) -> int:
    return sum(agent["reports_received"] for agent in collector.get("/agents", limit="1000")["agents"])


def measure(name: str, options: argparse.Namespace, database: str | None, size: int) -> None:
    """Feed `size` collectors over one kind of transport."""
    reports = make_reports(options.reports, options.sites)
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(size)]
        arguments = () if database is None else ("--database", database)
        collectors = [stack.enter_context(run_collector(folder, *arguments, udp=True)) for folder in folders]
        feed = feed_stream if name == "unix" else feed_datagrams
        started_cpu_s, started_s = sum(cpu_seconds(one.pid) for one in collectors), time.perf_counter()
        applied = feed(collectors, options.agents, reports, options.sites, apart=options.services)
        wall_s = time.perf_counter() - started_s - (1.0 if name == "udp" else 0.0)
        cpu_s = sum(cpu_seconds(one.pid) for one in collectors) - started_cpu_s
        commits = sum(one.counters()["commits"] for one in collectors)
        calls = applied * options.sites * CALLS_PER_DELTA
        print(
            f"{name}, {size} on {'SQLite' if database is None else 'PostgreSQL'}: "
            f"{applied} reports of {options.sites} sites from {options.agents} agents in {wall_s:.2f} s: "
            f"{applied / wall_s:,.0f} reports/s, {applied * options.sites / wall_s:,.0f} deltas/s, "
            f"{calls / wall_s:,.0f} represented calls/s; "
            f"{cpu_s / calls * 1e6:.3f} CPU s per million calls, "
            f"{cpu_s / calls * CALLS_PER_DELTA * 1e6:.1f} µs per delta; "
            f"{commits} commits, {'; '.join(map(commit_times, collectors))}; "
            f"peak {max(peak_mib(one.pid) for one in collectors):.0f} MiB; "
            f"lost {options.agents * options.reports - applied}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--reports", type=int, default=200, help="per agent")
    parser.add_argument("--sites", type=int, default=30, help="counted in each report")
    parser.add_argument("--services", action="store_true", help="each agent is a service of its own")
    parser.add_argument("--postgres", type=int, nargs="*", metavar="N", help="so many collectors on one PostgreSQL")
    parser.add_argument("--rate", type=int, help="represented calls per second, in all")
    parser.add_argument("--seconds", type=int, default=60, help="how long, with --rate")
    parser.add_argument("--database", metavar="URL", help="of a store that is there, with --rate")
    options = parser.parse_args()
    if options.rate:
        measure_steadily(options)
        return
    if options.postgres is None:
        for name in ("unix", "udp"):
            measure(name, options, None, 1)
    for size in options.postgres or ():
        with run_server(find_binaries()) as server:
            measure("unix", options, server.url, size)
            print(f"    PostgreSQL: {server.cpu_seconds():.1f} CPU s")


if __name__ == "__main__":
    main()
