"""What of arguments and context may leave the process: what was allowed by name, as copies of bounded size.

While a slice runs, its thread remembers the arguments of its costliest calls of allowed operations, and asks the
context providers at its first blocking call. If it turns out slow, what is allowed is copied: texts, numbers, and of
anything else the name of its type. So nothing of the service's is held any longer, changed later or encoded elsewhere.
The shipper's thread then asks the user's hook (shipping/scrubbing.py) and cuts the copies to the lengths of the wire.

Cost model. Where nothing is allowed, one look per blocking call whether there is a Disclosure; where something is, a
call of `hold` per blocking call, and the providers' time per slice with one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextvars import Context
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from aiocop.aggregate import SiteCounters
from aiocop.events import Events
from aiocop.loop_thread import HeldArguments, LoopThread
from aiocop.shipping.fit import fit_value
from aiocop_wire import ContextValue
from aiocop_wire.light_typing import NamedTuple
from aiocop_wire.limits import MAX_ARGUMENTS, MAX_CONTEXT_ITEMS, MAX_NAME

EVERYTHING: Final = "*"
"""As a name: all there are."""

MAX_HELD: Final = 50
"""Sites of one slice whose arguments are remembered."""
_MAX_TEXT: Final = 4_096
"""Characters copied of one value: four times what is shipped, so that the hook sees a secret whole that the shipped
length would cut in two."""
_MAX_EVENT_TEXT: Final = 8_192
"""Characters copied for one slow event."""
_MAX_SEQUENCE_ITEMS: Final = 50
_PLAIN: Final = (str, int, float, bool, type(None))

_T = TypeVar("_T")


class Disclosed(NamedTuple):
    """What one slow event says."""

    context: Mapping[str, ContextValue]
    arguments: Mapping[int, Mapping[str, ContextValue]]
    """By site."""


class Disclosure:
    """The names that were allowed, and whom to ask for context. Never changed; called on loops' threads."""

    def __init__(self, events: Events, *, context: Collection[str] = (), operations: Collection[str] = ()) -> None:
        self._events = events
        self._context = frozenset(context)
        self._operations = frozenset(operations)

    @classmethod
    def of(cls, events: Events, context: Collection[str], operations: Collection[str]) -> Disclosure | None:
        """None where nothing is allowed."""
        return cls(events, context=context, operations=operations) if context or operations else None

    def hold(
        self,
        thread: LoopThread,
        counters: SiteCounters,
        positional: tuple[Any, ...],
        keywords: dict[str, Any],
        own_ns: int,
    ) -> None:
        """Remember what an event of the running slice may say of a call that took `own_ns`, 0 where that is unknown."""
        if self._context and thread.provided is None:
            thread.provided = thread.quietly(self._events.provide)
        definition = counters.site.definition
        if not _allowed(definition.operation, self._operations):
            return
        held = thread.held_arguments
        known = held.get(definition.site_id)
        if known is None:
            if len(held) < MAX_HELD:
                held[definition.site_id] = HeldArguments(own_ns, positional, keywords)
        # Of equal ones the last: where only starts are seen, it is the one that may still be running.
        elif own_ns >= known.own_ns:
            held[definition.site_id] = HeldArguments(own_ns, positional, keywords)

    def disclose(self, thread: LoopThread, context: Context | None, before: dict[str, Any] | None) -> Disclosed:
        """Copies for the event of the slice that ends on `thread`; `context` and `before` as in Slices.finish."""
        copier = _Copier()
        known: Mapping[str, Any] = {}
        if self._context:
            known = thread.quietly(partial(self._events.context, thread, context, before))
        shown = [(name, value) for name, value in known.items() if _allowed(name, self._context)]
        costliest_first = sorted(thread.held_arguments.items(), key=lambda item: item[1].own_ns, reverse=True)
        return Disclosed(
            copier.copy(shown[:MAX_CONTEXT_ITEMS]),
            {site_id: copier.copy(_named(held)) for site_id, held in costliest_first},
        )


def _allowed(name: object, names: frozenset[str]) -> bool:
    return type(name) is str and (name in names or EVERYTHING in names)


def _named(held: HeldArguments) -> list[tuple[str, Any]]:
    """Arguments by position, from "0" on, and by name."""
    named = [(str(position), value) for position, value in enumerate(held.positional[:MAX_ARGUMENTS])]
    return named + list(islice(held.keywords.items(), MAX_ARGUMENTS - len(named)))


class _Copier:
    """Copies for one event, within its bound."""

    def __init__(self) -> None:
        self._left = _MAX_EVENT_TEXT

    def copy(self, named: Iterable[tuple[str, Any]]) -> dict[str, ContextValue]:
        copies: dict[str, ContextValue] = {}
        for name, value in named:
            if self._left <= 0:
                break
            copies[name[:MAX_NAME]] = copied = copy_value(value, min(self._left, _MAX_TEXT))
            self._left -= len(name) + (len(copied) if type(copied) is str else 8)
        return copies


def copy_value(value: object, most: int) -> ContextValue:
    """A copy of at most `most` characters: of a path or a list its text, of what has none the name of its type.

    No code of the service runs for it: exact types only, a subclass may do anything.
    """
    kind = type(value)
    if kind is list or kind is tuple:
        opening, closing = "[]" if kind is list else "()"
        return f"{opening}{_items_text(value)}{closing}"[:most]  # type: ignore[arg-type]
    if kind.__module__ in ("pathlib", "pathlib._local"):
        return str(value)[:most]
    return fit_value(value, most)


def _items_text(items: Collection[object]) -> str:
    shown = [
        repr(fit_value(item, _MAX_TEXT)) if type(item) in _PLAIN else type(item).__name__
        for item in islice(items, _MAX_SEQUENCE_ITEMS)
    ]
    return ", ".join([*shown, "…"] if len(items) > _MAX_SEQUENCE_ITEMS else shown)
