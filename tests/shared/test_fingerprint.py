"""Fingerprints are the same on every host and for ever: pinned by constants, and computed a second way."""

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from aiocop_wire import fingerprint, site_id, stable_id

_FRAMES = [("socket.py", "create_connection", 5), ("shop/orders.py", "Orders.create", 3)]


def test_they_are_what_they_were():
    assert fingerprint(_FRAMES) == 12462530342877259391
    assert site_id("open", fingerprint(_FRAMES)) == 9134948983024427320
    assert stable_id("a", 1, "ä", -5) == 10791702697760290126
    assert stable_id("\udcff") == 14971884489657706299
    assert stable_id() == fingerprint([]) == 16476032584258269876


def test_they_are_computed_as_docs_wire_says():
    data = b"9:socket.py" + b"17:create_connection" + b"2:\x005"
    data += b"14:shop/orders.py" + b"13:Orders.create" + b"2:\x003"
    assert fingerprint(_FRAMES) == int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
    number = str(fingerprint(_FRAMES)).encode()
    data = b"4:site" + b"4:open" + str(len(number) + 1).encode() + b":\x00" + number
    assert site_id("open", fingerprint(_FRAMES)) == int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


parts = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=5) | st.integers(-99, 99), max_size=4)


@given(parts, parts)
def test_boundaries_and_types_count(one, other):
    assert (stable_id(*one) == stable_id(*other)) == (one == other)


def test_the_order_of_frames_counts():
    assert fingerprint(_FRAMES) != fingerprint(reversed(_FRAMES))


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.integers(0, 99)), max_size=4))
def test_it_fits_an_unsigned_64_bit_integer(frames):
    assert 0 <= fingerprint(frames) < 2**64
