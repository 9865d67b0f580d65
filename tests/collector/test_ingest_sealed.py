"""A collector with a key takes sealed datagrams only; one that others can reach does not start without a key."""

import signal
import subprocess
import sys
import time

import pytest
from tests.support.collector import (
    DEADLINE_S,
    DatagramPeer,
    collector_environment,
    make_identity,
    make_report,
    make_site,
    now_ms,
    run_collector,
)
from tests.support.counting_source import CountingSource
from tests.support.shipping import running_shipper
from tests.support.waiting import wait_until

from aiocop_wire import Datagram, Define, SiteDelta, UdpAddress, encode
from aiocop_wire.seal import seal

KEY = "correct-horse-battery-staple"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "udp.key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def sealed(identity, sequence: int, *, key: str = KEY, sent_at_ms: int | None = None) -> bytes:
    datagram = encode(Datagram(identity, make_report(sequence, SiteDelta(1, 1, 0, 10, 5)), Define((make_site(1),))))
    return seal(datagram, key.encode(), now_ms() if sent_at_ms is None else sent_at_ms)


def count_of(collector) -> int:
    return sum(row["count"] for row in collector.get("/hotspots", since="1h")["hotspots"])


@pytest.mark.parametrize("how", ["flag", "file", "variable"])
def test_only_sealed_datagrams_count(tmp_path, key_file, how):
    arguments = ["--udp-key-file", str(key_file)] if how == "flag" else []
    environment = {"AIOCOP_UDP_KEY_FILE": str(key_file)} if how == "file" else {}
    environment |= {"AIOCOP_UDP_KEY": KEY} if how == "variable" else {}
    identity = make_identity()
    with (
        run_collector(tmp_path, *arguments, udp=True, **environment) as collector,
        DatagramPeer(collector.udp) as peer,
    ):
        good = sealed(identity, 1)
        peer.send_bytes(good)
        peer.send(identity, make_report(2, SiteDelta(1, 1, 0, 10, 5)), make_site(1))
        peer.send_bytes(sealed(identity, 3, key="another-key-of-somebody"))
        peer.send_bytes(sealed(identity, 4, sent_at_ms=now_ms() - 600_000))
        peer.send_bytes(sealed(identity, 5, sent_at_ms=now_ms() + 600_000))
        peer.send_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        peer.send_bytes(good)
        assert count_of(collector) == 1
        counters = collector.counters()
        refused = {name: number for name, number in counters.items() if name.startswith("refused_")}
        assert refused == {"refused_unsealed": 1, "refused_forged": 2, "refused_stale": 2}
        (agent,) = collector.get("/agents")["agents"]
        assert (agent["reports_received"], agent["reports_lost"], agent["reports_duplicated"]) == (1, 0, 1)
        assert KEY not in collector.log.read_text()


def test_a_shipper_seals_all_it_sends(tmp_path, key_file):
    source = CountingSource()
    with run_collector(tmp_path, "--udp-key-file", str(key_file), udp=True) as collector:
        with running_shipper(source, UdpAddress(*collector.udp), udp_key=KEY.encode()) as shipper:
            for site in range(2000):
                source.count(site, times=2)
            assert shipper.flush(DEADLINE_S)
            assert count_of(collector) == 4000
        wait_until(lambda: collector.get("/agents")["agents"][0]["tail"] == "complete", "the farewell")
        assert not [name for name in collector.counters() if name.startswith("refused_")]


SERVICE = """
import asyncio, os, aiocop

async def opens():
    for _ in range(7):
        open(os.devnull).close()

aiocop.start(service="sealed")
asyncio.run(opens())
assert aiocop.flush(30)
aiocop.stop()
"""


def test_a_service_takes_the_key_from_its_environment(tmp_path, key_file):
    with run_collector(tmp_path, "--udp-key-file", str(key_file), udp=True) as collector:
        environment = {"AIOCOP_COLLECTOR": "udp://{}:{}".format(*collector.udp), "AIOCOP_UDP_KEY_FILE": str(key_file)}
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", SERVICE],
            env=collector_environment() | environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        rows = collector.get("/hotspots", since="1h", operation="open")["hotspots"]
        assert [row["count"] for row in rows if row["call_site"].endswith(":opens")] == [7], rows
        assert not [name for name in collector.counters() if name.startswith("refused_")]


def test_without_a_key_sealed_datagrams_are_refused_by_name(tmp_path):
    with run_collector(tmp_path, udp=True) as collector, DatagramPeer(collector.udp) as peer:
        peer.send_bytes(sealed(make_identity(), 1))
        wait_until(lambda: collector.counters().get("refused_sealed") == 1, "the refusal")
        assert count_of(collector) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_it_does_not_listen_to_others_without_a_key(tmp_path, host):
    ended = subprocess.run(
        [sys.executable, "-m", "aiocop_collector", "serve", "--listen", f"udp://{host}:0", "--http", "127.0.0.1:0"],
        env=collector_environment() | {"AIOCOP_DATABASE": f"sqlite:///{tmp_path}/db"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 2
    assert "need a key" in ended.stderr
    assert "--udp-key-file" in ended.stderr
    assert "AIOCOP_UDP_KEY_FILE" in ended.stderr


def test_with_a_key_it_does(tmp_path, key_file):
    with (
        run_collector(tmp_path, "--listen", "udp://0.0.0.0:0", "--udp-key-file", str(key_file)) as collector,
        DatagramPeer(("127.0.0.1", collector.udp[1])) as peer,
    ):
        peer.send_bytes(sealed(make_identity(), 1))
        assert count_of(collector) == 1


@pytest.mark.parametrize(("text", "mode", "said"), [("short", 0o600, "openssl"), (KEY, 0o644, "chmod 600")])
def test_bad_key_files_are_one_sentence(tmp_path, key_file, text, mode, said):
    key_file.write_text(text)
    key_file.chmod(mode)
    ended = subprocess.run(
        [sys.executable, "-m", "aiocop_collector", "serve", "--udp-key-file", str(key_file)],
        env=collector_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert KEY not in ended.stderr


def test_what_the_kernel_drops_is_counted(tmp_path):
    """received + dropped = sent, when the collector is too slow for its buffer of some MiB."""
    sent = 0
    with run_collector(tmp_path, udp=True) as collector, DatagramPeer(collector.udp) as peer:
        collector.signal(signal.SIGSTOP)
        for _ in range(3000):
            peer.send_bytes(bytes(8000))
            sent += 1
        collector.signal(signal.SIGCONT)
        wait_until(lambda: collector.counters().get("refused_malformed", 0) > 0, "what the buffer held")
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            counters = collector.counters()
            taken, dropped = counters["refused_malformed"], counters.get("datagrams_dropped_by_kernel", 0)
            if taken + dropped == sent:
                break
        assert (taken + dropped, dropped > 0) == (sent, True)
