"""No input crashes or wedges a collector or makes it grow without bound, and good agents do not notice."""

import contextlib
import random
import socket
from pathlib import Path

import pytest
from tests.chaos.fleet import expect_every_count_once, run_fleet
from tests.chaos.hostile import frame_of, hostile_message
from tests.support.collector import DEADLINE_S, CollectorProcess, DatagramPeer, make_identity, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import Hello, Message, WireError, decode, encode, frame

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]

_MAX_GROWTH_BYTES = 192 << 20
_BURST = 200
_STREAM_SHARE = 10
"""One of so many comes over a stream, where each costs a connection."""


def resident_bytes(pid: int, field: str) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def heard(collector: CollectorProcess) -> int:
    """Datagrams that the collector has looked at."""
    counters = collector.counters()
    return counters.get("reports_udp", 0) + sum(n for name, n in counters.items() if name.startswith("refused_"))


def throw_datagrams(collector: CollectorProcess, chance: random.Random, times: int) -> None:
    with DatagramPeer(collector.udp) as peer:
        for _ in range(times // _BURST):
            before = heard(collector)
            for _ in range(_BURST):
                peer.send_bytes(hostile_message(chance))
            # Nobody else sends datagrams, and no stream is refused meanwhile: each of them is looked at.
            wait_until(lambda before=before: heard(collector) == before + _BURST, "all datagrams are taken in")


def throw_at_stream(path: str, chance: random.Random, times: int) -> None:
    for _ in range(times):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(DEADLINE_S)
            peer.connect(path)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if chance.random() < 0.5:
                    peer.sendall(frame(encode(Hello(make_identity("hostile")))))
                for _ in range(chance.choice([1, 1, 5])):
                    message = hostile_message(chance)
                    peer.sendall(frame_of(message, chance) if chance.random() < 0.8 else message)
                if chance.random() < 0.5:
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65_536):
                        pass


def test_hostile_messages(tmp_path, extent, chance):
    with (
        run_collector(tmp_path, udp=True) as collector,
        run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents,
    ):
        wait_until(lambda: collector.counters().get("commits", 0) > 2, "a first commit")
        pid, before = collector.pid, resident_bytes(collector.pid, "VmRSS")
        streams = extent.hostile_messages // _STREAM_SHARE
        throw_datagrams(collector, chance, extent.hostile_messages - streams)
        throw_at_stream(collector.socket_path, chance, streams)
        expect_every_count_once(collector, agents)
        wait_until(lambda: collector.http.get("/readyz").status_code == 200, "the collector is ready")
        assert collector.pid == pid
        assert resident_bytes(pid, "VmHWM") < before + _MAX_GROWTH_BYTES
        assert "Traceback" not in collector.log.read_text()
        assert collector.counters()["refused_malformed"] > extent.hostile_messages // 2
        assert collector.stop() == 0


def test_decode_raises_nothing_else(extent, chance):
    refused = 0
    for _ in range(extent.hostile_messages):
        data = hostile_message(chance)
        try:
            message = decode(data)
        except WireError:
            refused += 1
        else:
            assert isinstance(message, Message)
            encode(message)
    assert extent.hostile_messages // 2 < refused < extent.hostile_messages
