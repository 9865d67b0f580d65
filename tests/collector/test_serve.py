"""`aiocop-collector serve` as a process: what it prints, what it refuses in one sentence, and how it ends."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.collector import (
    DEADLINE_S,
    StreamPeer,
    collector_environment,
    make_identity,
    make_report,
    make_site,
    run_collector,
)
from tests.support.sql import make_database
from tests.support.waiting import wait_until

from aiocop_wire import Define, SiteDelta


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "aiocop_collector", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=collector_environment() | environment,
    )


def refusal(*arguments: str, code: int, **environment: str) -> str:
    """The one sentence on stderr of a `serve` that must not start."""
    ended = run("serve", *arguments, **environment)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("aiocop-collector: ")
    return lines[0]


@pytest.fixture
def elsewhere(tmp_path) -> list[str]:
    """Arguments that use nothing another collector may have."""
    return [
        *("--listen", f"unix://{tmp_path}/other.sock", "--http", "127.0.0.1:0"),
        *("--database", f"sqlite:///{tmp_path}/other.sqlite3"),
    ]


def test_it_says_where_it_listens_and_nothing_else(tmp_path):
    with run_collector(tmp_path, udp=True) as collector:
        unix, udp, http = collector.announced
        assert unix == f"listening on unix://{tmp_path}/collector.sock"
        assert udp.startswith("listening on udp://127.0.0.1:")
        assert http.startswith("listening on http://127.0.0.1:")
        assert not udp.endswith(":0")
        assert not http.endswith(":0")
        assert collector.get("/healthz") == {"status": "alive"}
        readiness = collector.get("/readyz")
        assert readiness["status"] == "ready"
        assert [row["address"] for row in readiness["sockets"]] == [
            line.removeprefix("listening on ") for line in (unix, udp)
        ]
        assert collector.get("/openapi.json")["info"]["title"] == "aiocop collector"


def test_the_socket_is_for_its_user_and_group_only(tmp_path):
    made = tmp_path / "made" / "by us"
    with run_collector(tmp_path, "--listen", f"unix://{made}/c.sock"):
        assert stat.S_IMODE((made / "c.sock").stat().st_mode) == 0o660
        assert stat.S_IMODE(made.stat().st_mode) == 0o750


def test_who_may_connect_can_be_chosen(tmp_path):
    made = tmp_path / "made"
    group = 1 if os.geteuid() == 0 else os.getgroups()[-1]
    arguments = ("--listen", f"unix://{made}/c.sock", "--socket-mode", "666", "--socket-group", str(group))
    with run_collector(tmp_path, *arguments):
        status = (made / "c.sock").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o666, group)
        assert made.stat().st_gid == group


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--socket-mode", "999"), "--socket-mode 999: permissions are three octal digits"),
        (("--socket-mode", "0440"), "--socket-mode 0440: the owner must be allowed to write"),
        (("--socket-group", "no such group"), "--socket-group: there is no group 'no such group'"),
    ],
)
def test_permissions_that_cannot_be_are_one_sentence(tmp_path, arguments, complaint):
    with pytest.raises(AssertionError, match=complaint), run_collector(tmp_path, *arguments):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_acknowledges_and_ends_cleanly(tmp_path, number):
    identity = make_identity()
    with run_collector(tmp_path) as collector:
        path = Path(collector.socket_path)
        with StreamPeer(str(path)) as peer:
            peer.greet(identity)
            peer.send(Define((make_site(1),)), *[make_report(n, SiteDelta(1, 1, 0, 9, 9)) for n in range(1, 41)])
            # Taken in, most of it not yet committed.
            wait_until(lambda: collector.counters().get("reports_unix") == 40, "the reports to be read")
            collector.signal(number)
            peer.wait_for_ack(40)
            assert peer.receive() is None
        assert collector.wait() == 0
        assert not path.exists()
        with sqlite3.connect(collector.database) as database:
            assert database.execute("SELECT sum(count) FROM rollups_day").fetchone() == (40,)
        database.close()


def test_a_stale_socket_file_is_replaced(tmp_path):
    with run_collector(tmp_path) as collector:
        collector.signal(signal.SIGKILL)
        collector.wait()
        assert Path(collector.socket_path).exists()
        collector.start()
        with StreamPeer(collector.socket_path) as peer:
            assert peer.greet(make_identity()) == 0


def test_a_live_socket_is_refused(tmp_path, elsewhere):
    with run_collector(tmp_path) as collector:
        said = refusal(*elsewhere, "--listen", f"unix://{collector.socket_path}", code=1)
        assert "in use by a running collector" in said
        with StreamPeer(collector.socket_path) as peer:
            assert peer.greet(make_identity()) == 0
    assert not (tmp_path / "other.sock").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path, elsewhere):
    precious = tmp_path / "precious"
    precious.write_text("data")
    assert "not a socket" in refusal(*elsewhere, "--listen", f"unix://{precious}", code=1)
    assert precious.read_text() == "data"


@pytest.mark.parametrize(("scheme", "kind"), [("http", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_port_in_use_is_refused(elsewhere, scheme, kind):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--http", place] if scheme == "http" else ["--listen", f"udp://{place}"]
        said = refusal(*elsewhere, *flags, code=1)
    assert f"{scheme}://{place} is in use" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--listen", "tcp://127.0.0.1:1"], ["--listen", "tcp://127.0.0.1:1", "unix://"]),
        (["--listen", "unix://relative"], ["absolute path"]),
        (["--listen", "udp://127.0.0.1"], ["udp://HOST:PORT"]),
        (["--http", "8717"], ["--http 8717", "HOST:PORT"]),
        (["--http", "127.0.0.1:99999"], ["HOST:PORT"]),
        (["--retention", "soon"], ["--retention soon", "30d"]),
        (["--retention", "1s"], ["one hour"]),
        (["--database", "mysql://localhost/x"], ["mysql", "postgresql://"]),
        (["--database", "nonsense"], ["sqlite:///"]),
        (["--database", "sqlite://"], ["needs a file"]),
        (["--http", "0.0.0.0:0"], ["--token-file"]),
        (["--token-file", "/nonexistent/token"], ["/nonexistent/token"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_bad_value_is_one_sentence_and_code_2(elsewhere, flags, words):
    said = refusal(*elsewhere, *flags, code=2)
    assert all(word in said for word in words), said


def test_a_bad_environment_variable_is_named(tmp_path):
    said = refusal(code=2, AIOCOP_RETENTION="soon", AIOCOP_LISTEN=f"unix://{tmp_path}/c.sock")
    assert "environment variable AIOCOP_RETENTION" in said


def test_a_database_that_is_none_is_refused_and_left_alone(tmp_path, elsewhere):
    file = tmp_path / "letter.txt"
    file.write_text("Dear database, " * 100)
    said = refusal(*elsewhere, "--database", f"sqlite:///{file}", code=1)
    assert f"sqlite:///{file}" in said
    assert "not a database" in said
    assert "aiocop-collector db restore" in said
    assert file.read_text() == "Dear database, " * 100


def test_a_database_in_an_impossible_place_is_refused(tmp_path, elsewhere):
    (tmp_path / "file").touch()
    said = refusal(*elsewhere, "--database", f"sqlite:///{tmp_path}/file/collector.sqlite3", code=1)
    assert str(tmp_path / "file") in said
    said = refusal(*elsewhere, "--database", f"sqlite:///{tmp_path}", code=1)
    assert "unable to open" in said


def test_a_newer_schema_is_refused(tmp_path, elsewhere):
    with run_collector(tmp_path) as collector:
        assert collector.stop() == 0
    with sqlite3.connect(collector.database) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.execute("UPDATE about SET value = '9999' WHERE name = 'oldest_revision'")
    database.close()
    said = refusal(*elsewhere, "--database", f"sqlite:///{collector.database}", code=1)
    assert "'9999'" in said
    assert "pip install 'aiocop-telemetry[collector]>=" in said


def test_no_place_for_the_default_socket_is_refused(tmp_path):
    """Neither /run/aiocop nor $XDG_RUNTIME_DIR can be used: as an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not write /run")
    code = "import os; from aiocop_collector.sockets import default_unix_address as d; os.setuid(65534); print(d())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=collector_environment() | {"XDG_RUNTIME_DIR": str(tmp_path / "private")},
    )
    assert ended.returncode == 1
    assert "name one with --listen" in ended.stderr


def test_a_token_is_needed_for_all_but_health(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o644)
    assert "chmod 600" in run("serve", "--http", "127.0.0.1:0", "--token-file", str(token)).stderr
    token.chmod(0o600)
    with run_collector(tmp_path, "--http", "0.0.0.0:0", "--token-file", str(token)) as collector:
        statuses = {
            given: collector.http.get("/hotspots", headers={"Authorization": given} if given else {}).status_code
            for given in ("", "Bearer s3cret", "Bearer s3cret2", "Bearer", "Basic s3cret", "bearer s3cret")
        }
        refused = collector.http.get("/openapi.json")
        assert (collector.get("/healthz")["status"], collector.get("/readyz")["status"]) == ("alive", "ready")
    assert statuses == {
        "": 401,
        "Bearer s3cret": 200,
        "Bearer s3cret2": 401,
        "Bearer": 401,
        "Basic s3cret": 401,
        "bearer s3cret": 200,
    }
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_locked_database_is_waited_for_and_readyz_says_so(tmp_path):
    identity = make_identity()
    with run_collector(tmp_path) as collector, StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        wait_until(lambda: collector.counters().get("commits"), "the agent's row")
        blocker = sqlite3.connect(collector.database, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 7, 0, 9, 9)))

        def readiness():
            return collector.http.get("/readyz")

        wait_until(lambda: readiness().status_code == 503, "not ready")
        assert "another process keeps it locked" in readiness().json()["writer"]["error"]
        assert not peer.has_answer(), "acknowledged before it was committed"
        blocker.execute("ROLLBACK")
        blocker.close()
        peer.wait_for_ack(1)
        assert readiness().status_code == 200
        (row,) = collector.get("/hotspots", since="1h")["hotspots"]
        assert row["count"] == 7


@pytest.mark.postgres
def test_postgresql_is_served_from_the_url_people_write(tmp_path, postgres_url):
    identity = make_identity("on-postgres")
    url = make_database(postgres_url).replace("postgresql+asyncpg://", "postgresql://")
    with run_collector(tmp_path, "--database", url) as collector:
        with StreamPeer(collector.socket_path) as peer:
            peer.greet(identity)
            peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 7, 1, 9_000, 9_000, (12, 7))))
            peer.wait_for_ack(1)
        (row,) = collector.get("/hotspots", since="1h", service="on-postgres")["hotspots"]
        assert (row["count"], row["call_site"]) == (7, "shop/orders.py:1:function_1")
        assert collector.get("/readyz")["status"] == "ready"
        assert collector.stop() == 0


def test_health_asks_a_running_collector(tmp_path):
    with run_collector(tmp_path) as collector:
        ended = run("health", "--url", collector.url, "--wait", "20")
        assert (ended.returncode, ended.stdout) == (0, "ready\n")
        gone = collector.url
    ended = run("health", "--url", gone)
    assert ended.returncode == 3
    assert gone in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_help_and_version():
    assert run("--version").stdout.startswith("aiocop-collector 0.")
    helped = run("serve", "--help")
    assert helped.returncode == 0
    for name in ("--listen", "--http", "--database", "--token-file", "--retention", "AIOCOP_LISTEN", "Examples"):
        assert name in helped.stdout
    assert run("serve", "--nonsense").returncode == 2


def test_a_missing_extra_is_one_sentence(tmp_path):
    """An interpreter that sees the three packages and none of the extra's."""
    for package in ("collector/aiocop_collector", "shared/aiocop_wire"):
        (tmp_path / Path(package).name).symlink_to(Path(package).resolve())
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "aiocop_collector", "serve"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ended.returncode == 2
    assert "pip install 'aiocop-telemetry[collector]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
