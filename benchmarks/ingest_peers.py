"""What ingest costs beside others that take measurements over UDP: `python benchmarks/ingest_peers.py [--write]`.

The npm `statsd` daemon, Debian's collectd (its statsd plugin, writing CSV) and netdata (its statsd, all other plugins
off) get timer lines; our collector gets reports, over UDP and over a Unix stream. All get the same number of
measurements, in datagrams of the same size, from a sender that waits whenever the receiver's socket holds more than a
few datagrams: so each works at its own full speed and nothing is lost, which the kernel's counter of drops has to
confirm. Ours is done when everything is committed; the others keep their numbers in memory.

A line of statsd is one measurement. A delta of ours holds the count, the sum, the maximum and the histogram of a second
at one site, so it stands for as many measurements as the site had calls: a single one, which is the worst case; 20; and
100, which is what 10 000 blocking calls a second at 100 lines make. Ours gets half as many deltas as the others get
lines. Measured is the receiver's CPU time (all its threads), rounds interleaved; shown are medians and ranges.

Needs: node and npm, and Debian's collectd-core and netdata-core (as root they are installed, without being started).
"""

import argparse
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import cpu_seconds
from benchmarks.recording import measure_recording, measure_shipper
from tests.support.collector import (
    CollectorProcess,
    StreamPeer,
    make_identity,
    make_report,
    make_site,
    run_collector,
)

from aiocop_wire import Datagram, Define, Identity, SiteDelta, encode, frame

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ingest.md"
TOOLS = ROOT / ".cache" / "ingest-peers"
SIZES = {"loopback, 8 KiB": 8192, "Ethernet, 1432 B": 1432}
SITES = 500
CALLS_PER_DELTA = (1, 20, 100)
QUEUE_BYTES = 256 << 10
DEADLINE_S = 120.0


def socket_state(port: int) -> tuple[int, int]:
    """(bytes that wait, datagrams that were dropped) of all UDP sockets on a port."""
    waiting = dropped = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            waiting += int(fields[4].rpartition(":")[2], 16)
            dropped += int(fields[12])
    return waiting, dropped


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Peer(ABC):
    """A daemon that takes timers in statsd's text format."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @abstractmethod
    def command(self) -> list[str]:
        """Write its configuration; what starts it in the foreground."""

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its pid, once it listens."""
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while f":{self.port:04X} " not in Path("/proc/net/udp").read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not listen: {(self.folder / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            time.sleep(1.0)  # what it does at its start is not what is measured
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Statsd(Peer):
    name = "statsd (npm)"

    def command(self) -> list[str]:
        (self.folder / "config.js").write_text(
            f"{{port: {self.port}, address: '127.0.0.1', mgmt_port: {free_port()}, mgmt_address: '127.0.0.1', "
            "backends: []}"
        )
        return ["node", str(TOOLS / "node_modules" / "statsd" / "stats.js"), "config.js"]


class Collectd(Peer):
    name = "collectd"

    def command(self) -> list[str]:
        (self.folder / "collectd.conf").write_text(
            f'Hostname "benchmark"\nFQDNLookup false\nInterval 10\nBaseDir "{self.folder}"\n'
            f'PIDFile "{self.folder}/pid"\nPluginDir "/usr/lib/collectd"\nTypesDB "/usr/share/collectd/types.db"\n'
            f'LoadPlugin csv\nLoadPlugin statsd\n<Plugin csv>\n  DataDir "{self.folder}/csv"\n</Plugin>\n'
            f'<Plugin statsd>\n  Host "127.0.0.1"\n  Port "{self.port}"\n  TimerPercentile 99\n</Plugin>\n'
        )
        return ["/usr/sbin/collectd", "-f", "-C", "collectd.conf"]


class Netdata(Peer):
    name = "netdata"

    def command(self) -> list[str]:
        folders = "\n".join(f"    {name} = {self.folder}/{name}" for name in ("config", "cache", "lib", "stock"))
        for name in ("config", "cache", "lib", "stock"):
            (self.folder / name).mkdir(exist_ok=True)
        off = ("timex", "idlejitter", "proc", "diskspace", "cgroups", "tc", "slabinfo", "netdata monitoring", "go.d")
        (self.folder / "netdata.conf").write_text(
            f"[global]\n    run as user = root\n[directories]\n{folders}\n[db]\n    mode = ram\n"
            "[web]\n    mode = none\n[health]\n    enabled = no\n[ml]\n    enabled = no\n[registry]\n    enabled = no\n"
            "[plugins]\n    enable running new plugins = no\n    statsd = yes\n"
            + "".join(f"    {name} = no\n" for name in off)
            + f"[statsd]\n    enabled = yes\n    default port = {self.port}\n    bind to = udp:127.0.0.1\n"
        )
        return ["/usr/sbin/netdata", "-D", "-c", f"{self.folder}/netdata.conf"]


PEERS: tuple[type[Peer], ...] = (Statsd, Collectd, Netdata)


@dataclass(frozen=True)
class Load:
    """Datagrams and what they stand for."""

    datagrams: Sequence[bytes]
    measurements: int

    @property
    def bytes_per_measurement(self) -> float:
        return sum(map(len, self.datagrams)) / self.measurements


@dataclass(frozen=True)
class Measured:
    """One receiver, once."""

    cpu_s: float
    wall_s: float
    measurements: int
    lost: int

    @property
    def per_core_second(self) -> float:
        return self.measurements / self.cpu_s


def statsd_load(measurements: int, size: int) -> Load:
    """The same lines over and over: timers of as many names as there are sites."""
    lines = [f"shop.prod.orders.function_{n}.open:{3 + n % 40}.{n % 10}|ms".encode() for n in range(SITES)]
    datagrams, held, held_bytes = [], [], 0
    for line in islice(cycle(lines), measurements):
        if held_bytes + len(line) + 1 > size:
            datagrams.append(b"\n".join(held))
            held, held_bytes = [], 0
        held.append(line)
        held_bytes += len(line) + 1
    datagrams.append(b"\n".join(held))
    return Load(datagrams, measurements)


def delta(number: int, calls: int) -> SiteDelta:
    bins = (3 + number % 40, 1) if calls == 1 else (3, calls * 3 // 4, 12, calls - calls * 3 // 4)
    return SiteDelta(number, calls, 0, 3_000 * calls, 9_000, bins)


def our_load(measurements: int, size: int, calls: int) -> Load:
    """Reports of one agent, as many sites in each as its datagram holds; the first datagrams define the sites."""
    identity = make_identity()
    defining = [
        encode(Datagram(identity, make_report(number), Define((make_site(number),)))) for number in range(1, SITES + 1)
    ]
    most = deltas_that_fit(identity, size, calls)
    numbers = cycle(range(1, SITES + 1))
    reports = -(-measurements // (most * calls))
    datagrams = [
        encode(
            Datagram(identity, make_report(SITES + n, *[delta(next(numbers), calls) for _ in range(most)]), Define())
        )
        for n in range(1, reports + 1)
    ]
    return Load([*defining, *datagrams], reports * most * calls)


def deltas_that_fit(identity: Identity, size: int, calls: int) -> int:
    """How many different sites a datagram can report."""
    for most in range(SITES, 0, -1):
        report = make_report(1 << 20, *[delta(number, calls) for number in range(1, most + 1)])
        if len(encode(Datagram(identity, report, Define()))) <= size:
            return most
    raise ValueError(f"no report fits {size} bytes")


def send_all(port: int, datagrams: Sequence[bytes]) -> None:
    """As fast as the receiver takes them, and no faster."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        unseen = 0
        for datagram in datagrams:
            sender.send(datagram)
            unseen += 2 * len(datagram)  # the kernel accounts for more than the bytes
            if unseen > QUEUE_BYTES // 4:
                unseen = 0
                while socket_state(port)[0] > QUEUE_BYTES // 4:
                    time.sleep(0.0005)


def wait_until_quiet(pid: int, port: int) -> None:
    """Nothing waits in its socket, and it computes no more."""
    deadline = time.monotonic() + DEADLINE_S
    before = -1.0
    while (socket_state(port)[0] or cpu_seconds(pid) > before + 0.02) and time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(0.25)


def measure_peer(peer: Peer, load: Load) -> Measured:
    with peer.running() as pid:
        started_cpu_s, started_s = cpu_seconds(pid), time.perf_counter()
        send_all(peer.port, load.datagrams)
        wait_until_quiet(pid, peer.port)
        wall_s = time.perf_counter() - started_s
        return Measured(cpu_seconds(pid) - started_cpu_s, wall_s, load.measurements, socket_state(peer.port)[1])


def measure_ours_udp(folder: Path, load: Load) -> Measured:
    with run_collector(folder, udp=True) as collector:
        _, port = collector.udp
        started_cpu_s, started_s = cpu_seconds(collector.pid), time.perf_counter()
        send_all(port, load.datagrams)
        lost = wait_until_committed(collector, len(load.datagrams))
        wall_s = time.perf_counter() - started_s
        return Measured(cpu_seconds(collector.pid) - started_cpu_s, wall_s, load.measurements, lost)


def measure_ours_unix(folder: Path, measurements: int, calls: int) -> Measured:
    """Reports of the size that an agent sends: every site that was active, up to all of them."""
    numbers = cycle(range(1, SITES + 1))
    reports = -(-measurements // (SITES * calls))
    data = frame(encode(Define(tuple(make_site(number) for number in range(1, SITES + 1))))) + b"".join(
        frame(encode(make_report(n, *[delta(next(numbers), calls) for _ in range(SITES)])))
        for n in range(1, reports + 1)
    )
    with run_collector(folder) as collector, StreamPeer(collector.socket_path) as peer:
        started_cpu_s, started_s = cpu_seconds(collector.pid), time.perf_counter()
        peer.greet(make_identity())
        sender = threading.Thread(target=peer.send_bytes, args=(data,))
        sender.start()
        while peer.receive().sequence < reports:
            pass
        sender.join()
        wall_s = time.perf_counter() - started_s
        return Measured(cpu_seconds(collector.pid) - started_cpu_s, wall_s, reports * SITES * calls, 0)


def wait_until_committed(collector: CollectorProcess, reports: int) -> int:
    """How many of the reports did not arrive."""
    known = before = -1
    deadline = time.monotonic() + DEADLINE_S
    while known < reports and time.monotonic() < deadline:
        known = sum(agent["reports_received"] for agent in collector.get("/agents", limit="10")["agents"])
        if known == before:
            break
        before = known
        time.sleep(0.5)
    return reports - known


def measure_round(measurements: int) -> dict[tuple[str, str], Measured]:
    """Every receiver with every size, each from its start."""
    found: dict[tuple[str, str], Measured] = {}
    for says, size in SIZES.items():
        for kind in PEERS:
            with tempfile.TemporaryDirectory() as folder:
                peer = kind(Path(folder))
                found[peer.name, says] = measure_peer(peer, statsd_load(measurements, size))
        for calls in CALLS_PER_DELTA:
            with tempfile.TemporaryDirectory() as folder:
                load = our_load(measurements * calls // 2, size, calls)
                found[ours(calls, "UDP"), says] = measure_ours_udp(Path(folder), load)
    for calls in CALLS_PER_DELTA:
        with tempfile.TemporaryDirectory() as folder:
            found[ours(calls, "Unix"), "stream"] = measure_ours_unix(Path(folder), measurements * calls // 2, calls)
    return found


def ours(calls: int, transport: str) -> str:
    return f"ours, {transport}, a delta for {calls} call{'s' if calls > 1 else ''}"


def spread(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def page(rounds: Sequence[dict[tuple[str, str], Measured]], measurements: int) -> str:
    """The whole of docs/ingest.md."""
    lines = [
        "# What ingest costs, beside others",
        "",
        f"Made by `python benchmarks/ingest_peers.py --write` on {datetime.now(timezone.utc):%Y-%m-%d}: CPython "
        f"{platform.python_version()},",
        f"{os.cpu_count()} CPUs, {len(rounds)} rounds of {measurements:,} measurements for each daemon. Load average "
        f"afterwards: {os.getloadavg()[0]:.0f}. Don't edit: run it again.",
        "",
        *(__doc__ or "").partition("\n\n")[2].partition("\n\nNeeds:")[0].splitlines(),
        "",
        "| receiver | datagrams | measurements per core-second | CPU s per million | ÷ the best of the others | lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    others = {says: [max(one[kind.name, says].per_core_second for kind in PEERS) for one in rounds] for says in SIZES}
    for key in rounds[0]:
        name, says = key
        best = others.get(says, [max(each) for each in zip(*others.values(), strict=True)])
        rates = [one[key].per_core_second for one in rounds]
        ratios = [rate / other for rate, other in zip(rates, best, strict=True)]
        lines.append(
            f"| {name} | {says} | {spread(rates, ',.0f')} | {spread([1e6 / rate for rate in rates], '.2f')} | "
            f"{spread(ratios, '.2f')} | {sum(one[key].lost for one in rounds)} |"
        )
    lines += ["", "## Bytes on the wire per measurement", "", "| | " + " | ".join(SIZES) + " |", "| --- | --- | --- |"]
    sizes = [statsd_load(100_000, size).bytes_per_measurement for size in SIZES.values()]
    lines.append("| a line of statsd | " + " | ".join(f"{size:.1f}" for size in sizes) + " |")
    for calls in CALLS_PER_DELTA:
        sizes = [our_load(1_000_000 * calls, size, calls).bytes_per_measurement for size in SIZES.values()]
        lines.append(f"| {ours(calls, 'UDP')} | " + " | ".join(f"{size:.1f}" for size in sizes) + " |")
    return "\n".join([*lines, "", *recording_section(), ""])


def recording_section() -> list[str]:
    recorded, share = measure_recording(), measure_shipper()
    return [
        "## What an agent can record",
        "",
        f"One loop that does nothing but call `os.getcwd()`, 100 times in a slice, while the agent ships to a real "
        f"collector: **{recorded.per_second:,.0f} blocking calls a second** of CPU time of its thread, of which the "
        f"agent takes {recorded.added_ns:,.0f} ns per call; all {recorded.calls:,} arrived.",
        "",
        f"At {share.calls_per_second:,.0f} blocking calls a second at {share.sites} sites, the agent's threads took of "
        f"a core: {', '.join(f'`{name}` {part:.2%}' for name, part in share.shares.items())}.",
    ]


def prepare() -> None:
    """Install what is missing. Ends the program, saying what, where that is not possible."""
    if shutil.which("npm") is None:
        raise SystemExit("ingest_peers: needs node and npm")
    if not (TOOLS / "node_modules" / "statsd").exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--omit=optional", "--prefix", str(TOOLS)]
        subprocess.run([*install, "statsd"], check=True, cwd=TOOLS)
    missing = [
        name
        for name, path in (("collectd-core", "/usr/sbin/collectd"), ("netdata-core", "/usr/sbin/netdata"))
        if not Path(path).exists()
    ]
    if missing and os.geteuid() != 0:
        raise SystemExit(f"ingest_peers: install {' and '.join(missing)} first")
    if missing:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
            check=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
            stdout=subprocess.DEVNULL,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=2_000_000, help="for each daemon and size (2000000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="keep the result in docs/ingest.md")
    options = parser.parse_args()
    prepare()
    rounds = []
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds} …", file=sys.stderr)
        rounds.append(measure_round(options.measurements))
    text = page(rounds, options.measurements)
    if options.write:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
