"""The key that datagrams must be sealed with (see aiocop_wire.seal), and when there has to be one."""

import stat
from pathlib import Path

from aiocop_collector.errors import SettingsError
from aiocop_collector.settings import Settings, is_loopback
from aiocop_wire import UdpAddress, check_key

_MAX_FILE_CHARACTERS = 8192


def find_udp_key(settings: Settings) -> bytes | None:
    """The key of these settings; None where datagrams need none. Raises SettingsError.

    Whoever can reach a datagram socket can write any number into the store, so one that other machines can reach needs
    a key.
    """
    if settings.udp_key_file is not None:
        return _check(_read(settings.udp_key_file), f"the udp key file {settings.udp_key_file}")
    if settings.udp_key is not None:
        return _check(settings.udp_key.get_secret_value(), "environment variable AIOCOP_UDP_KEY")
    for address in settings.listen:
        if isinstance(address, UdpAddress) and not is_loopback(address.host):
            raise SettingsError(
                f"{address} can be reached from other machines, so datagrams need a key: make one with "
                "(umask 077; openssl rand -hex 32 > FILE), pass --udp-key-file FILE, and give agents the same as "
                "AIOCOP_UDP_KEY_FILE; or listen on 127.0.0.1"
            )
    return None


def _check(text: str, where: str) -> bytes:
    try:
        return check_key(text)
    except ValueError as error:
        raise SettingsError(f"{where}: the key {error}") from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MAX_FILE_CHARACTERS)
    except OSError as error:
        raise SettingsError(f"the udp key file {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise SettingsError(f"the udp key file {path} can be read by others (mode {mode:04o}): chmod 600 {path}")
    return text
