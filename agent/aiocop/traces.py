"""From a stack to a site: who called, where it can be fixed, and a name that is the same on every host.

Cost model. `key_of` runs once per blocking call on a loop's thread: it reads two unaudited fields per frame (about
0.1 µs each) and stops at the call site, so a call made directly by application code costs one frame. `Traces.site` runs
once per new key (about 50 µs): it looks at code objects, which raise audit events, and computes the fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any, Final

from aiocop.allowing import AllowRule
from aiocop.catalogue import OTHER, Operation
from aiocop.frames import FRAME_AIOCOP, FRAME_RUNNER, FrameNames, is_own_business
from aiocop_wire import (
    FRAME_APPLICATION,
    Frame,
    SiteDefinition,
    TraceDefinition,
    fingerprint,
    site_id,
    stable_id,
)
from aiocop_wire.light_typing import NamedTuple

LOOP: Final = "<loop>"
"""The pseudo call site of time that no application code can be blamed for."""
COLLECTOR: Final = "<gc>"
"""The pseudo call site of the garbage collector's own pauses."""
UNKNOWN_HOLDER: Final = "<gil>"
"""The pseudo call site of time in which a thread held the GIL that had gone on before anybody could look at it."""
OTHER_SITE: Final = "<other>"
"""The pseudo call site of sites that are too many to be kept apart."""
MAX_SITES: Final = 8_000
"""Different sites one process describes."""
MAX_SITE_FRAMES: Final = 32
"""Frames between a call and its call site that are looked at; library stacks are rarely deeper than 20."""
MAX_TRACES_PER_SITE: Final = 3
_NEAR_OFFSET: Final = 128
"""Bytes into a function's code up to which its line is found quickly."""

Key = tuple[Any, ...]


class StackFrame(NamedTuple):
    """One frame of a stack, looked at once: what identifies it and what names it."""

    module: object
    code: CodeType
    line: int
    kind: int


class Site:
    """The static facts of a site, shared by all threads of the process."""

    __slots__ = ("call_site", "definition", "entry_point", "muted", "rule", "silent", "summary", "trace_ids")

    def __init__(
        self, definition: SiteDefinition, rule: AllowRule | None, *, muted: bool, summary: bool = False
    ) -> None:
        self.definition = definition
        self.call_site = shown(definition.frames[definition.call_site])
        """`path:line:function`"""
        self.entry_point = shown(definition.frames[0])
        self.muted = muted
        """An event loop did this on its own behalf: nothing to report unless a slice is slow."""
        self.summary = summary
        """Stands for calls of one operation that nobody looked at closely (detail.py)."""
        self.rule: AllowRule | None = None
        """The rule that allows it."""
        self.silent = False
        """A call here is no ordinary call: see Slices.pass_over. The one flag that the hot path reads."""
        self.set_rule(rule)
        self.trace_ids: tuple[int, ...] = ()
        """Full traces kept so far; replaced, never changed in place. Written by the loops' threads."""

    def set_rule(self, rule: AllowRule | None) -> None:
        """Let a rule allow it, or none."""
        self.rule = rule
        self.silent = self.muted or self.summary or rule is not None


class Traces:
    """Sites and full traces by id. Loop threads add (a dict's setdefault is atomic), the shipper's thread reads."""

    def __init__(self, names: FrameNames) -> None:
        self.names = names
        self.sites: dict[int, Site] = {}
        self.traces: dict[int, TraceDefinition] = {}
        self.rules: tuple[AllowRule, ...] = ()
        self.kept_depth = MAX_SITE_FRAMES
        """Frames of a full trace that are kept, those of the application aside."""

    def key_of(self, operation: str, frame: FrameType | None) -> Key:
        """What identifies a call: the operation, and module and line of each frame down to the call site.

        Ends with None where no frame is the call site: so (operation, module, line) is always a call that application
        code makes itself, and may be looked for without knowing what kind of module it is.
        """
        kinds = self.names.kinds
        key: list[Any] = [operation]
        depth = 0
        while frame is not None:
            module = frame.f_globals.get("__name__")
            kind = kinds.get(module)
            if kind is None:
                kind = self.names.kind(frame)
            if kind != FRAME_AIOCOP:
                if kind == FRAME_RUNNER:
                    break
                key += (module, frame.f_lineno)
                if kind == FRAME_APPLICATION:
                    return tuple(key)
                depth += 1
                if depth == MAX_SITE_FRAMES:
                    break
            frame = frame.f_back
        key.append(None)
        return tuple(key)

    def full_key(self, operation: str, frame: FrameType | None, limit: int) -> Key:
        """What identifies a call and its trace: module and line of each frame down to the slice's callback.

        Past `limit` frames only the call site matters. Finding the line costs the more the further a frame is in its
        function (9 ns per entry of the line table, CPython 3.11: 2.6 µs in FastAPI's `app`). So far in a function that
        is not application code, above the call site, its offset stands for the line: two such functions of one module
        that call on from the same offset, in stacks that are equal otherwise, are shown as the one seen first.
        """
        kind_of = self.names.kinds.get
        runner = self.names.runner_globals
        key: list[Any] = [operation]
        above: FrameType | None = frame
        while above is not None and (module_globals := above.f_globals) is not runner:
            module = module_globals.get("__name__")
            key += (module, above.f_lineno)
            above = above.f_back
            limit -= 1
            if kind_of(module) == FRAME_APPLICATION:
                break
            if limit <= 0:
                return (*key, self.key_of(operation, frame))
        while limit > 0 and above is not None and (module_globals := above.f_globals) is not runner:
            module = module_globals.get("__name__")
            place = above.f_lasti
            if place < _NEAR_OFFSET or kind_of(module) == FRAME_APPLICATION:
                place = -above.f_lineno
            key += (module, place)
            above = above.f_back
            limit -= 1
        return tuple(key)

    def stack(self, frame: FrameType | None, limit: int) -> list[StackFrame]:
        """The frames of a slice, innermost first, without the agent's and without those of the loop that ran it.

        The innermost `limit` frames are kept, and the application's frames wherever they are.
        """
        kinds = self.names.kinds
        stack: list[StackFrame] = []
        while frame is not None:
            module = frame.f_globals.get("__name__")
            kind = kinds.get(module)
            if kind is None:
                kind = self.names.kind(frame)
            if kind == FRAME_RUNNER:
                break
            if kind != FRAME_AIOCOP and (len(stack) < limit or kind == FRAME_APPLICATION):
                code = frame.f_code
                self.names.register_module(frame.f_globals, code)
                stack.append(StackFrame(module, code, frame.f_lineno or code.co_firstlineno, kind))
            frame = frame.f_back
        return stack

    def frames(self, stack: Iterable[StackFrame]) -> tuple[Frame, ...]:
        """The stack as it is shown and shipped."""
        describe = self.names.describe
        return tuple([describe(item.module, item.code, item.line, item.kind) for item in stack])

    def site(self, operation: Operation, stack: list[StackFrame]) -> Site:
        """The site that a stack belongs to: `<loop>` where the loop called a built-in function itself."""
        stack = innermost(stack, MAX_SITE_FRAMES)
        call_site = next((index for index, item in enumerate(stack) if item.kind == FRAME_APPLICATION), None)
        own = stack[: MAX_SITE_FRAMES if call_site is None else call_site + 1][-MAX_SITE_FRAMES:]
        if not own:
            return self.pseudo_site(operation, LOOP)
        frames = self.frames(own)
        return self._add_site(
            operation,
            frames,
            fingerprint(
                [
                    (shown.path, shown.function, item.line - item.code.co_firstlineno)
                    for shown, item in zip(frames, own)  # noqa: B905 - same length by construction, hot enough
                ]
            ),
            call_site=0 if call_site is None else len(frames) - 1,
            muted=any(is_own_business(item.module) for item in own),
        )

    def function_site(self, operation: Operation, module: object, code: CodeType) -> Site:
        """The site of a function whose current line nobody saw."""
        frame = self.names.describe(module, code, code.co_firstlineno, FRAME_APPLICATION)
        return self._add_site(operation, (frame,), fingerprint([(frame.path, frame.function, 0)]))

    def pseudo_site(self, operation: Operation, name: str) -> Site:
        """A site that is no line of code: `<gc>`, `<loop>`, `<other>`."""
        return self._add_site(operation, (Frame(name, 0, ""),), fingerprint([(name, "", 0)]))

    def summary_site(self, operation: Operation) -> Site:
        """Where calls of an operation are counted that nobody looks at closely: at `<other>`."""
        return self._add_site(operation, (Frame(OTHER_SITE, 0, ""),), fingerprint([(OTHER_SITE, "", 0)]), summary=True)

    @property
    def other_site(self) -> Site:
        """Where sites that are too many to be kept apart are counted, whatever their operation."""
        return self.pseudo_site(OTHER, OTHER_SITE)

    def _add_site(
        self,
        operation: Operation,
        frames: tuple[Frame, ...],
        site_fingerprint: int,
        *,
        call_site: int = 0,
        muted: bool = False,
        summary: bool = False,
    ) -> Site:
        identifier = site_id(operation.name, site_fingerprint)
        known = self.sites.get(identifier)
        if known is not None:
            return known
        if len(self.sites) >= MAX_SITES and not frames[0].path.startswith("<"):
            # Code that is generated without end: its sites are counted together.
            return self.other_site
        definition = SiteDefinition(
            site_id=identifier,
            operation=operation.name,
            fingerprint=site_fingerprint,
            cause=operation.cause,
            reason="io_blocking" if operation.cause in ("io", "wait") else "cpu_blocking",
            weight=operation.weight,
            frames=frames,
            call_site=call_site,
            advice=operation.advice,
        )
        site = Site(definition, self._rule_for(definition), muted=muted, summary=summary)
        return self.sites.setdefault(identifier, site)

    def set_rules(self, rules: tuple[AllowRule, ...]) -> None:
        """Allow what these rules match, known sites included."""
        self.rules = rules
        for site in list(self.sites.values()):
            site.set_rule(self._rule_for(site.definition))

    def _rule_for(self, definition: SiteDefinition) -> AllowRule | None:
        return next((rule for rule in self.rules if rule.allows(definition.operation, definition.frames)), None)

    @property
    def looked_depth(self) -> int:
        """How deep a stack must be looked at, to find a site and to keep a trace."""
        return max(self.kept_depth, MAX_SITE_FRAMES)

    def keep_traces_of(self, depth: int) -> None:
        """Keep traces of this depth from now on, also of sites that have some: those are forgotten, and memory stays
        bounded."""
        self.kept_depth = depth
        for site in list(self.sites.values()):
            site.trace_ids = ()
        self.traces.clear()

    def keep_trace(self, site: Site, stack: list[StackFrame]) -> int:
        """Keep a full trace of a site while it has few; the id of the trace, 0 when it was not kept."""
        frames = self.frames(innermost(stack, self.kept_depth))
        names = (part for frame in frames for part in (frame.path, frame.line, frame.function))
        trace_id = stable_id("trace", site.definition.site_id, *names)
        if trace_id in site.trace_ids:
            return trace_id
        if len(site.trace_ids) >= MAX_TRACES_PER_SITE:
            return 0
        self.traces.setdefault(trace_id, TraceDefinition(trace_id, site.definition.site_id, frames))
        site.trace_ids = (*site.trace_ids, trace_id)
        return trace_id


def innermost(stack: list[StackFrame], limit: int) -> list[StackFrame]:
    """A stack as it would be if it had been looked at to this limit."""
    if len(stack) <= limit:
        return stack
    return stack[:limit] + [item for item in stack[limit:] if item.kind == FRAME_APPLICATION]


def shown(frame: Frame) -> str:
    """`path:line:function`; just the name of a pseudo call site."""
    return str(frame) if frame.function else frame.path
