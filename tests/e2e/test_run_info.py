"""What `aiocop-run --info` tells, beside a collector that runs, one that does not, and something else in its place."""

import json
import socket
import sys
import threading

import pytest
from tests.support.collector import run_collector
from tests.support.running import AIOCOP_RUN, SCRIPTS, clean_environment, run
from tests.support.waiting import wait_until


def info(*arguments: str, **environment: str) -> tuple[int, dict]:
    told = run(AIOCOP_RUN, "--info", "--json", *arguments, environment=clean_environment(**environment))
    assert told.stderr == ""
    return told.returncode, json.loads(told.stdout)


def test_a_collector_that_answers(tmp_path):
    with run_collector(tmp_path, udp=True) as collector:
        unix, udp = f"unix://{collector.socket_path}", "udp://{}:{}".format(*collector.udp)
        code, told = info("--service", "shop", SCRIPTS / "uvicorn", "app:app", AIOCOP_COLLECTOR=unix, DD_ENV="prod")
        assert code == 0
        assert told["collectors"] == [
            {"address": unix, "answers": True, "detail": f"answers, aiocop-collector {told['version']}"}
        ]
        assert told["options"]["service"] == {"value": "shop", "origin": "--service"}
        assert told["options"]["environment"] == {"value": "prod", "origin": "DD_ENV"}
        assert told["options"]["collector"] == {"value": [unix], "origin": "AIOCOP_COLLECTOR"}
        assert told["options"]["threshold_ms"] == {"value": 30.0, "origin": "default"}
        assert told["command"]["python"]["prefix"] == sys.prefix
        assert told["warnings"] == []
        (agent,) = wait_until(lambda: collector.get("/agents")["agents"], "the hello is in the store")
        assert (agent["service"], agent["environment"], agent["recorded"]) == ("shop", "prod", 0)

        code, told = info("--collector", udp)
        assert code == 0
        (answer,) = told["collectors"]
        assert (answer["address"], answer["answers"]) == (udp, None)
        assert answer["detail"].startswith("sent; udp does not answer")
        wait_until(lambda: len(collector.get("/agents")["agents"]) == 2, "the datagram is in the store")

        shown = run(AIOCOP_RUN, "--info", "--collector", unix, environment=clean_environment())
        assert f"collector {unix}: answers" in shown.stdout
        assert [line.split() for line in shown.stdout.splitlines() if line.startswith("  collector")] == [
            ["collector", unix, "--collector"]
        ]


def test_nobody_there(tmp_path):
    code, told = info("--collector", f"unix://{tmp_path}/nobody.sock")
    assert code == 3
    assert told["collectors"][0]["detail"] == "No such file or directory"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, told = info("--collector", f"udp://127.0.0.1:{port}")
    assert (code, told["collectors"][0]["detail"]) == (3, "nobody listens there")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something answers, but it is no collector that this agent understands"),
        (b"", "it closed the connection without an answer"),
        (None, "something listens, but does not answer within 2 s"),
    ],
)
def test_somebody_else_in_its_place(tmp_path, answer, detail):
    asked = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def be_somebody_else() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65_536)
                if answer is None:
                    asked.wait(60)
                else:
                    peer.sendall(answer)

        thread = threading.Thread(target=be_somebody_else)
        thread.start()
        try:
            code, told = info("--collector", f"unix://{tmp_path}/s")
        finally:
            asked.set()
            thread.join()
    assert code == 3
    assert told["collectors"][0]["detail"].startswith(detail)


def test_what_would_go_wrong_is_told():
    code, told = info("no-such-command", AIOCOP_COLLECTOR="tcp://x")
    assert code == 127
    assert [warning.split(":")[0] for warning in told["warnings"]] == ["no-such-command", "AIOCOP_COLLECTOR='tcp"]
    assert told["collectors"] == []
    code, told = info("--", sys.executable, "-I", "app.py")
    assert [warning for warning in told["warnings"] if "-I" in warning]
    code, told = info("sh", "-c", "uvicorn app:app", AIOCOP_ENABLED="0")
    assert (code, told["collectors"], told["options"]["enabled"]["value"]) == (0, [], False)
    assert "is not a Python script" in told["warnings"][0]
