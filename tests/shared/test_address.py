"""Addresses as both sides write them."""

import pytest

from aiocop_wire import AddressError, UdpAddress, UnixAddress, default_socket_paths, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/aiocop/collector.sock", UnixAddress("/run/aiocop/collector.sock")),
        ("udp://127.0.0.1:8718", UdpAddress("127.0.0.1", 8718)),
        ("udp://collector.internal:0", UdpAddress("collector.internal", 0)),
        ("udp://[::1]:8718", UdpAddress("::1", 8718)),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix://",
        "unix://relative.sock",
        "unix:///" + "x" * 107,
        "unix:///" + "ä" * 60,
        "udp://",
        "udp://127.0.0.1",
        "udp://:8718",
        "udp://127.0.0.1:99999",
        "udp://127.0.0.1:x",
        "udp://127.0.0.1:-1",
        "udp://127.0.0.1:8718/path",
        "udp://[::1:8718",
        "tcp://127.0.0.1:8718",
        "http://127.0.0.1:8717",
        "/run/aiocop/collector.sock",
        "127.0.0.1:8718",
    ],
)
def test_what_cannot_be_used_is_an_error_that_shows_it(text):
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)
    assert "like" in str(caught.value) or "at most" in str(caught.value)


def test_the_longest_path_that_a_socket_can_have():
    assert parse_address("unix:///" + "x" * 106) == UnixAddress("/" + "x" * 106)


def test_where_both_sides_look_without_an_address():
    assert default_socket_paths({}) == ("/run/aiocop/collector.sock",)
    assert default_socket_paths({"XDG_RUNTIME_DIR": "/run/user/1000"}) == (
        "/run/aiocop/collector.sock",
        "/run/user/1000/aiocop/collector.sock",
    )
