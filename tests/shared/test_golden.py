"""Version 1 of the protocol, pinned to the byte. A golden file is never edited: a new version gets new ones."""

import hashlib
from pathlib import Path

import pytest
from tests.shared.golden_messages import GOLDEN

from aiocop_wire import PROTOCOL_VERSION, decode, encode

_FOLDER = Path(__file__).parent / "golden"
_SHA256 = {
    "v1-control": "537bb1b99d8d638e463c81088d10237f72897b4cb39b56a1cd698a0f8e880f77",
    "v1-control-nothing": "d01f92160b5696539f21b348e7aabbe43f9e5ad8372f0236d65327fe75aa07df",
    "v1-controlled": "1b567ed84308639f33f677e7a875f8ed9e90a0b69a7e5dedf3d6b5eefa51a811",
    "v1-hello-features": "bb13712ac305af139c74496b2b245b76279e59c35bc216210d3d2f5d5e9ab352",
    "v1-report-arguments": "f83af8a4fead2ac77c612a8c4c52fd65bb7de0bc5c2643db5bd0ed01bf475565",
    "v1-report-loops": "1bec9e0c4ede5261faff132a29b305694e800ad6e4afac6668d8af24c15720b7",
    "v1-report-capture": "96e8cd7871d23b628822259138546601461cf6b842b76481ab3019ec4452a716",
    "v1-ack": "ee2701a047aae73b15369a465d12a626cb89a64f7545bac85f4a7197b952cf5d",
    "v1-datagram": "e940fa5023538b14089454d21b48ffcf0fcdb704f5b04ce4dad2290db4e0807c",
    "v1-datagram-farewell": "c40e06f82ab409d7f2b13e4df12466dd035729cf5e080bddb6d65e4977e7e90f",
    "v1-datagram-sealed": "1413a463c91b2fcda87545928e54520682f8ba268fe50bf50110e397a7c8f51a",
    "v1-define": "ded2b7278b25711988e029ffbd2411a0c7c77330c780f4f26973182bbb3aed2c",
    "v1-farewell": "f53b1b82fbcd470208c02feaa206b96e05eb8c4b09c82689870b1571e5f2e9e5",
    "v1-hello": "f2ea11645a2774a62103f596bb9bec4aabc04bd334caf62eab9a133d0716c7b0",
    "v1-refused": "0569ee355aecd16c5272bd18b097abd18005bb8eca94476ade095c708a160387",
    "v1-report": "15201d515757615da5996a725897d8f81f5755d50b995b71a3a905107d22e76c",
    "v1-welcome-features": "aec87bc30ff0739c1abc99876a5071938615055f1c2b6224d736c4a6b9a80861",
    "v1-stall": "50302ee3ea89088a1c233865336b40ff2bc839942a70cb75a92ba39b6b4c1ea8",
    "v1-report-overhead": "8114ad3e4b75846d79026102e645ede60c23ab638db2a58333c2e0412353d6a7",
    "v1-report-stalls": "5af7737b4e7af811f97ab8a0fdfcc703d3180434664a9f3e641e04d7069c5df2",
    "v1-datagram-stall": "dde37eef859668719555dbd024af2f31adb9aa896f69bf0eb9fe8b21fec75faa",
    "v1-welcome": "4341bbfe5826f50498ed566c667c5c7832d0456f9591dc58f9a1680e3c92c114",
}


def _bytes(name: str) -> bytes:
    return (_FOLDER / f"{name}.msgpack").read_bytes()


def test_the_golden_files_are_the_ones_that_were_made_with_the_version():
    assert {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in _FOLDER.glob("*")} == _SHA256


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_reads_as_its_message(name):
    assert type(decode(_bytes(name))) is type(GOLDEN[name])
    assert decode(_bytes(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith(f"v{PROTOCOL_VERSION}-")])
def test_a_message_of_this_version_is_written_as_its_golden_file(name):
    assert encode(GOLDEN[name]) == _bytes(name)


def test_every_kind_of_message_has_a_golden_file():
    assert {type(message).__name__ for message in GOLDEN.values()} == {
        "Ack",
        "Control",
        "Controlled",
        "Datagram",
        "Define",
        "Farewell",
        "Hello",
        "Refused",
        "Report",
        "Stall",
        "Welcome",
    }
