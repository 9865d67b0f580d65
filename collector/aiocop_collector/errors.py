"""What can stop the collector from starting, or one request of its command line from succeeding.

CollectorError                  the root; cli.py prints its text, one sentence on stderr, and exits with `exit_code`
├── SettingsError               a flag or an environment variable that cannot be used: correct it (exit code 2)
├── BindError                   an address is taken, or may not be used here (1)
├── DatabaseError               the database cannot be opened, read or written (1)
│   └── NewerSchemaError        a newer collector wrote it: install that version or a newer one (1)
├── CollectorUnreachableError   client.py, probe.py: no collector answers, or it is not ready (3)
└── RefusedQuestionError        client.py: the collector says what is wrong with the question (2)

What a peer can do wrong is not here but in aiocop_wire.errors; receive/ counts it and ends that connection only.
"""

from typing import ClassVar


class CollectorError(Exception):
    """One sentence for the person who started the collector: what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 1


class SettingsError(CollectorError):
    """A value given by flag or environment that cannot be used. The text names where it came from."""

    exit_code: ClassVar[int] = 2


class BindError(CollectorError):
    """An address cannot be listened on."""


class DatabaseError(CollectorError):
    """The database cannot be opened, migrated or written."""


class NewerSchemaError(DatabaseError):
    """The database has a schema revision this version does not know."""
