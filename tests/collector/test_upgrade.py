"""The next version beside this one on one PostgreSQL. The next version is this one with a migration more."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.collector import (
    DEADLINE_S,
    CollectorProcess,
    StreamPeer,
    collector_environment,
    make_identity,
    make_report,
    make_site,
    run_collector,
)
from tests.support.sql import make_database, run_sql

import aiocop_collector
from aiocop_collector.store.migrations import OLDEST_REVISION
from aiocop_wire import Define, SiteDelta, __version__

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("mood", sa.String(), nullable=True))
    op.add_column("rollups_minute", sa.Column("weight", sa.BigInteger(), nullable=False, server_default="1"))
    op.create_table("moods", sa.Column("id", sa.BigInteger(), primary_key=True))
"""


@pytest.fixture
def store_url(postgres_url) -> str:
    return make_database(postgres_url)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Where this version runs, and where the next one does: a process finds the package in its folder first."""
    this, following = tmp_path / "this", tmp_path / "next"
    this.mkdir()
    package = following / "aiocop_collector"
    shutil.copytree(Path(aiocop_collector.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    versions = package / "store" / "migrations" / "versions"
    head = max(file.name[:4] for file in versions.glob("0*.py"))
    (versions / "9999_next.py").write_text(MIGRATION.format(head=head))
    return this, following


AGENT = make_identity()


def report(collector: CollectorProcess, *sequences: int) -> None:
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(AGENT)
        agent.send(Define((make_site(1),)), *[make_report(n, SiteDelta(1, 1, 1, 9, 9)) for n in sequences])
        agent.wait_for_ack(sequences[-1])


def test_this_version_works_on_what_the_next_one_adds(folders, store_url):
    with run_collector(folders[0], "--database", store_url) as this:
        report(this, 1, 2)
        with run_collector(folders[1], "--database", store_url) as following:
            assert run_sql(store_url, "SELECT version_num FROM alembic_version") == [("9999",)]
            report(this, 3, 4)  # as it runs
            assert this.stop() == 0
            this.start()
            assert "a newer collector migrated the database" in this.log.read_text()
            report(this, 5, 6)
            report(following, 7)
            for collector in (this, following):
                (row,) = collector.get("/hotspots")["hotspots"]
                assert (row["count"], row["last_release"]) == (7, "1.0")
                (agent,) = collector.get("/agents")["agents"]
                assert (agent["reports_received"], agent["reports_duplicated"]) == (7, 0)
    assert run_sql(store_url, "SELECT DISTINCT weight FROM rollups_minute") == [(1,)]


def test_this_version_refuses_what_the_next_one_breaks(folders, store_url):
    source = folders[1] / "aiocop_collector" / "store" / "migrations" / "__init__.py"
    text = source.read_text()
    assert text.count(f'OLDEST_REVISION: Final = "{OLDEST_REVISION}"') == 1
    source.write_text(text.replace(f'"{OLDEST_REVISION}"', '"9999"'))
    with run_collector(folders[1], "--database", store_url):
        pass
    ended = subprocess.run(
        [sys.executable, "-m", "aiocop_collector", "serve", "--database", store_url, "--listen", "udp://127.0.0.1:0"],
        cwd=folders[0],
        env=collector_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 1
    assert "'9999'" in ended.stderr
    assert f"aiocop-telemetry[collector]>={__version__}'" in ended.stderr
