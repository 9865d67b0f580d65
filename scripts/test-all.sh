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
echo "test-all: found" "$(printf '%s\n' "$found" | cut -d' ' -f1 | tr '\n' ' ')"
for version in 3.10 3.11 3.12 3.13; do
    printf '%s\n' "$found" | grep -q "^$version " || echo "test-all: SKIPPED Python $version: it is not installed here"
done

failed=
for version in $(printf '%s\n' "$found" | cut -d' ' -f1); do
    python=$(printf '%s\n' "$found" | sed -n "s|^$version ||p")
    venv=.venvs/$version
    echo "== Python $version ($python)"
    if [ ! -e "$venv/.installed" ] || [ pyproject.toml -nt "$venv/.installed" ] ||
        [ requirements/constraints.txt -nt "$venv/.installed" ]; then
        works=$python
        [ -x "$venv/bin/python" ] && works=
        PYTHON=$works scripts/make-venv.sh "$venv" || { failed="$failed $version"; continue; }
    fi
    "$venv/bin/python" -m pytest "$@" || failed="$failed $version"
done

if [ -n "$failed" ]; then
    echo "test-all: FAILED on Python$failed" >&2
    exit 1
fi
echo "test-all: passed on Python" "$(printf '%s\n' "$found" | cut -d' ' -f1 | tr '\n' ' ')"
