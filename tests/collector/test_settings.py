"""Where a setting comes from, and that the table in settings.py tells the truth."""

from datetime import timedelta
from pathlib import Path

import pytest

from aiocop_collector import settings as settings_module
from aiocop_collector.errors import SettingsError
from aiocop_collector.settings import HttpAddress, Settings, load_settings
from aiocop_collector.tokens import load_tokens
from aiocop_wire import UdpAddress, UnixAddress


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AIOCOP_{name.upper()}", raising=False)


def test_defaults():
    settings = load_settings({})
    assert settings.listen == ()
    assert str(settings.http) == "http://127.0.0.1:8717"
    assert settings.retention == timedelta(days=30)
    assert settings.token_file is None


def test_a_flag_wins_over_the_environment_and_this_over_the_default(monkeypatch):
    monkeypatch.setenv("AIOCOP_RETENTION", "7d")
    monkeypatch.setenv("AIOCOP_HTTP", "[::1]:0")
    monkeypatch.setenv("AIOCOP_LISTEN", "unix:///run/a.sock, udp://127.0.0.1:0")
    settings = load_settings({"retention": "12h"})
    assert settings.retention == timedelta(hours=12)
    assert settings.http == HttpAddress("::1", 0)
    assert settings.listen == (UnixAddress("/run/a.sock"), UdpAddress("127.0.0.1", 0))


def test_variables_of_the_agent_are_none_of_ours(monkeypatch):
    monkeypatch.setenv("AIOCOP_SERVICE", "shop")
    monkeypatch.setenv("AIOCOP_COLLECTOR", "nonsense")
    load_settings({})


def test_an_address_given_twice_is_refused():
    with pytest.raises(SettingsError, match=r"--listen: unix:///a\.sock is given twice"):
        load_settings({"listen": ["unix:///a.sock", "unix:///a.sock"]})


def test_every_setting_is_in_the_table():
    for name in Settings.model_fields:
        if name != "udp_key":  # a secret is no flag
            assert f"`--{name.replace('_', '-')}`" in settings_module.__doc__
        assert f"`AIOCOP_{name.upper()}`" in settings_module.__doc__


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_what_is_loopback(host, loopback):
    assert HttpAddress(host, 0).is_loopback() == loopback


@pytest.mark.parametrize("text", ["", "  \n", "two words", "söme", "ci reader sha256:" + "0" * 64, "ci read sha256:12"])
def test_a_token_file_holds_one_plain_word_or_hashes(tmp_path: Path, text):
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="must hold"):
        load_tokens(Settings(token_file=path))
