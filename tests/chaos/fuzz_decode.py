"""A coverage-guided fuzzer (libFuzzer, through atheris) of all that is done with bytes that nobody checked yet.

    python tests/chaos/fuzz_decode.py [-runs=N] [-max_total_time=SECONDS] CORPUS_FOLDER

It begins with the golden messages, and finds by itself what hypothesis and chance would hardly find: what reaches a
new branch of `decode` is kept in the folder and changed further. Anything but a WireError ends it, with the bytes.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["aiocop_wire"]):
    import aiocop_wire

from tests.shared.golden_messages import GOLDEN


def fuzz(data: bytes) -> None:
    """One input, as a datagram and as what a stream brings."""
    try:
        message = aiocop_wire.decode(data)
    except aiocop_wire.WireError:
        pass
    else:
        again = aiocop_wire.encode(message)
        assert aiocop_wire.encode(aiocop_wire.decode(again)) == again
    reader = aiocop_wire.FrameReader()
    try:
        for start in range(0, len(data), 7):
            for body in reader.feed(data[start : start + 7]):
                aiocop_wire.decode(body)
    except aiocop_wire.WireError:
        pass


def main() -> None:
    folder = Path(sys.argv[-1])
    for name, message in GOLDEN.items():
        body = aiocop_wire.encode(message)
        (folder / f"{name}.datagram").write_bytes(body)
        (folder / f"{name}.stream").write_bytes(aiocop_wire.frame(body))
    atheris.Setup(
        [*sys.argv[:-1], "-max_len=16384", "-rss_limit_mb=1024", f"-artifact_prefix={folder}/", str(folder)], fuzz
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
