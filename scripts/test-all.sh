#!/bin/sh
# The tests, without the gates, on every CPython from 3.10 on that is installed here. Arguments go to pytest.
# Each Python has its own environment under .venvs/. Fails if the tests fail on any of them.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$here" || exit 2
found=$(scripts/find-pythons.sh)
if [ -z "$found" ]; then
    echo "test-all: no CPython from 3.10 on was found" >&2
    exit 2
fi
for version in 3.10 3.11 3.12 3.13; do
    printf '%s\n' "$found" | grep -q "^$version " || echo "test-all: SKIPPED Python $version: it is not installed here"
done

test_on() {
    venv=.venvs/$1
    echo "== Python $1 ($2)"
    if [ ! -e "$venv/.installed" ] || [ pyproject.toml -nt "$venv/.installed" ] ||
        [ requirements/constraints.txt -nt "$venv/.installed" ]; then
        wanted=$2
        if [ -x "$venv/bin/python" ]; then
            wanted= # the environment is there, with this Python: bring it up to date
        fi
        PYTHON=$wanted scripts/make-venv.sh "$venv" || return 1
    fi
    shift 2
    "$venv/bin/python" -m pytest "$@"
}

passed=
failed=
while read -r version python; do
    if test_on "$version" "$python" "$@" </dev/null; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done <<END
$found
END

echo "test-all: passed on Python${passed:- none}"
if [ -n "$failed" ]; then
    echo "test-all: FAILED on Python$failed" >&2
    exit 1
fi
