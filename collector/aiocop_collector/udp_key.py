"""The key that datagrams must be sealed with (see aiocop_wire.seal), and when there has to be one."""

from aiocop_collector.errors import SettingsError
from aiocop_collector.settings import Settings, is_loopback, read_private_file
from aiocop_wire import UdpAddress, check_key


def find_udp_key(settings: Settings) -> bytes | None:
    """The key of these settings; None where datagrams need none. Raises SettingsError.

    Whoever can reach a datagram socket can write any number into the store, so one that other machines can reach needs
    a key.
    """
    if settings.udp_key_file is not None:
        return _check(
            read_private_file(settings.udp_key_file, "udp key file"), f"the udp key file {settings.udp_key_file}"
        )
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
