"""The tests of the published aiocop 1.2.1, against ours: `make published-tests`.

Its source distribution is fetched from the package index; nothing of it is kept in the project. Its tests import from
`aiocop.core.*` and `aiocop.types.*`, which are pointed at the public names here. Those that touch internals are left
out, by name; all others must pass. What fails is run again alone, because the tests sleep and measure.

Exit status: 0 passed, 1 failed. Where the distribution cannot be fetched: 0, and a loud line.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PUBLISHED = "aiocop==1.2.1"
INTERNALS = {
    "test_aiocop.py": {
        "test_initially_inactive",
        "test_time_sleep_patched_only_below_py313",
        "test_start_blocking_io_detection_twice_is_noop",
        "test_check_and_raise_function_raises_on_high_severity",
        "test_check_and_raise_does_not_raise_when_disabled",
        "test_check_and_raise_does_not_raise_for_low_severity",
        "test_exception_propagates_through_event_loop",
        "test_duplicate_callback_registration",
        "test_duplicate_context_provider_registration",
    },
    "test_cpu_sampler.py": {
        "test_package_dir_matches_the_installed_package",
        "test_identical_stacks_collapse_into_one_sample",
        "test_distinct_stacks_sorted_by_count",
        "test_empty_samples_format_to_empty_list",
        "test_detect_slow_tasks_starts_sampling_with_derived_arm",
        "test_derived_idle_tracks_a_small_arm",
        "test_pre_start_rederives_arm_when_detect_sets_the_threshold",
        "test_pre_start_rederives_arm_below_a_small_threshold",
        "test_zero_arm_does_not_spin_the_watchdog",
        "test_explicit_start_before_detect_wins_over_the_auto_start",
    },
    "test_uvloop.py": {"test_loop_is_patched_with_uvloop_run"},
}
"""They import or read names that begin with an underscore, or aiocop's own tables."""
ATTEMPTS = 3

_MODULES = r"aiocop\.(?:core|types)(?:\.\w+)?"
_RESET = re.compile(r"^( +)(?:state\._monitoring_active = False)$", re.MULTILINE)
_RESET_MORE = re.compile(r"^ +(?:state|slow_tasks)\._\w+(?:\.clear\(\)| = \w+)\n", re.MULTILINE)


def pointed_at_public_names(source: str) -> str:
    """A test file whose imports are those of the public API, and whose fixture that resets internals calls stop()."""
    source = re.sub(
        rf"^( *)from {_MODULES} import ((?:(?:cpu_sampler|slow_tasks|state|blocking_io)(?:, )?)+)(.*)$",
        lambda found: (
            f"{found[1]}import {', '.join(f'aiocop as {name}' for name in re.split(', ', found[2]))}{found[3]}"
        ),
        source,
        flags=re.MULTILINE,
    )
    source = re.sub(rf"^( *)from {_MODULES} import", r"\1from aiocop import", source, flags=re.MULTILINE)
    source = _RESET.sub(r"\1aiocop.stop()", source)
    return _RESET_MORE.sub("", source)


def fetch(folder: Path) -> Path | None:
    """The source distribution; None where there is none to be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-deps", "--no-binary", ":all:", "--dest", folder, PUBLISHED],
        check=False,
        capture_output=True,
        text=True,
    )
    found = next(folder.glob("aiocop-*.tar.gz"), None)
    if found is None:
        reason = (done.stderr.strip() or "it is not there").splitlines()[-1]
        print(f"!!!!! SKIPPED the published tests: {PUBLISHED} could not be fetched: {reason}", file=sys.stderr)
    return found


def extract(archive: Path, folder: Path) -> list[Path]:
    """Its tests, with their imports changed."""
    tests = []
    with tarfile.open(archive) as files:
        for member in files:
            name = Path(member.name).name
            content = files.extractfile(member) if name in INTERNALS else None
            if content is not None:
                tests.append(folder / name)
                tests[-1].write_text(pointed_at_public_names(content.read().decode()))
    return tests


def run(test: Path) -> bool:
    """Whether all tests of a file pass but for those that touch internals. Each file has a process of its own, as
    they set up what only stop() undoes.
    """
    left_out = " or ".join(sorted(INTERNALS[test.name]))
    options = ["-q", "-p", "no:randomly", "-o", "asyncio_mode=auto", "-c", "/dev/null", "--rootdir", str(test.parent)]
    for attempt in range(ATTEMPTS):
        again = ["--last-failed"] if attempt else []
        command = [sys.executable, "-m", "pytest", *options, *again, "-k", f"not ({left_out})", str(test)]
        if subprocess.run(command, check=False, cwd=test.parent).returncode == 0:
            return True
    return False


def main() -> int:
    """Fetch, rewrite, run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = fetch(folder)
        if archive is None:
            return 0
        failed = [test.name for test in extract(archive, folder) if not run(test)]
    print(f"published tests: FAILED in {', '.join(failed)}" if failed else "published tests: passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
