"""The one writer: holds what has arrived, commits it in short transactions, and tells senders only then.

    offer ─> pending ─(each FLUSH_INTERVAL_S, or when FLUSH_BYTES wait)─> transaction ─> commit ─> sender.committed

What a commit cannot do now (locked, disk full, server away) stays pending and is tried again, for ever; meanwhile
`is_full` makes the receivers stop reading, so that agents keep folding instead. What the database will never take is
found by applying each agent's part alone, and refused; the others go on.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.log import Log
from aiocop_collector.precedence import GivingWay, Precedence
from aiocop_collector.rules_file import Rules
from aiocop_collector.store.announcing import Announcer
from aiocop_collector.store.condense import Claim, Summed, claim_spans, finish, missing_spans, sum_span
from aiocop_collector.store.database import blames_values, reason_of, writing
from aiocop_collector.store.election import UPKEEP, Election
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.ruling import apply_rules, next_hotspots
from aiocop_collector.store.schema import agents
from aiocop_collector.store.snapshot import snapshot
from aiocop_collector.store.sqlite_file import SqliteFile
from aiocop_collector.store.statements import Statements
from aiocop_collector.store.transaction import Memory, Outcome, Transaction

FLUSH_INTERVAL_S: Final = 0.25
"""At most this often a commit, unless much waits. The first arrival after a pause does not wait."""

FLUSH_BYTES: Final = 512 << 10
"""Bytes of messages in one transaction, roughly: 25 000 deltas. The more there are, the more of them share a row: with
half as much a delta of 500 sites took a fifth more CPU time, with twice as much a twentieth less (measured). Of 10 000
sites it is most of a second's work, which is why it is not more."""

_DEFINITION_BYTES: Final = 400
"""What a new site costs a commit besides its own bytes, in bytes of deltas: on a large store 0.3 to 0.4 ms (measured).
A fleet that is new to a store defines thousands at once."""

PENDING_BYTES: Final = 2 << 20
"""Above this receivers stop reading. Decoded, this is about fifteen times as much memory (measured)."""

GIVE_WAY_S: Final = 0.25
"""Longest that one commit waits for questions, in all."""

PRUNE_INTERVAL_S: Final = 3600.0
SIZE_INTERVAL_S: Final = 60.0
CONDENSE_INTERVAL_S: Final = 10.0
SPANS_PER_ROUND: Final = 16
"""Summed before looking what is missing now: while much of the past is, the last minutes come first."""

ELECTION_INTERVAL_S: Final = 2.0
"""How often a collector that is not elected for upkeep looks whether it is now."""


_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_DEFECTS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What a mistake in this program looks like when some input brings it out. Tried again a few times, because drivers
raise such errors too, then treated like impossible values: one agent's input must not stop the others."""

_ATTEMPTS_WITH_DEFECT: Final = 5

T = TypeVar("T")

WriterState = Literal["idle", "writing", "waiting", "stopped"]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """For /readyz."""

    writer: WriterState
    """`waiting`: the last commit failed and is tried again."""
    error: str | None
    pending_reports: int
    pending_bytes: int
    last_commit_at_ms: int | None


class Store:
    """Everything here runs on the event loop's thread; SQLite itself runs in aiosqlite's."""

    def __init__(
        self,
        engine: AsyncEngine,
        counters: Counters,
        *,
        retention: timedelta,
        max_bytes: int = 0,
        clock_s: Callable[[], float] = time.time,
        on_commit: Callable[[Outcome, float], None] | None = None,
        on_exchange: Callable[[], None] | None = None,
        announcer: Announcer | None = None,
        rules: Rules | None = None,
        election: Election | None = None,
        precedence: Precedence | None = None,
    ) -> None:
        """`max_bytes` is how large the store may be, 0 for no limit. `on_commit` is told of each commit, and how many
        seconds it took, `on_exchange` when the database file was replaced by another, which knows no definition of a
        running agent; neither may raise. Without an election this is the store's only collector. `precedence` knows of
        questions, which go first."""
        self._engine = engine
        self._counters = counters
        self._retention = retention
        self._pruner = Pruner(engine, Limits(retention, max_bytes), clock_s=clock_s)
        self._clock_s = clock_s
        self._on_commit = on_commit
        self._on_exchange = on_exchange
        self._announcer = announcer
        self._rules = rules
        self._rules_are_new = rules is not None
        self._spans_are_behind = False
        self._election = election
        self._precedence = precedence or Precedence()
        self._statements = Statements(engine.dialect)
        self._memory = Memory(self._statements)
        self._file = SqliteFile(engine)
        self._log = Log("store")
        self._pending: deque[Arrival] = deque()
        self._in_flight: Sequence[Arrival] = ()
        self._offered = 0  # arrivals ever taken in, and of these …
        self._settled = 0  # … how many were committed or refused: they leave in the order they came
        self._unanswered = 0  # those up to the last whose sender is not told when it is committed
        self._hurried = 0  # those up to here are not to wait for FLUSH_INTERVAL_S
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._much = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stopping = False
        self._ended = False
        self._state: WriterState = "idle"
        self._error: str | None = None
        self._last_commit_at_ms: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write. The database must be migrated."""
        self._file.open()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-writer")

    async def stop(self, timeout_s: float) -> bool:
        """Commit what is held and end. False when that did not succeed within the time; then what is left is not
        acknowledged, and stream agents will send it again."""
        self._stopping = True
        self._room.clear()  # receivers read no more: what is still in their sockets stays with the agents
        self._arrived.set()
        self._much.set()
        task, self._task = self._task, None
        if task is None:
            return True
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self._state = "stopped"
        self._file.close()
        self._tell_waiting(self._offered)
        return not self._pending and not self._in_flight

    def offer(self, arrival: Arrival) -> None:
        """Take an arrival in. Never blocks; a receiver that finds `is_full` afterwards must wait for room.

        What comes after the last commit is not held: its sender was told nothing and has it still.
        """
        if self._ended:
            return
        self._counters.add("bytes_received", arrival.size_bytes)
        self._pending.append(arrival)
        self._offered += 1
        if arrival.transport == "udp" or arrival.report is None:
            self._unanswered = self._offered
        self._bytes += arrival.size_bytes
        self._arrived.set()
        if self._bytes >= FLUSH_BYTES:
            self._much.set()
        if self._bytes >= PENDING_BYTES:
            self._room.clear()

    def use_rules(self, rules: Rules) -> None:
        """Apply them from now on, and soon to everything stored."""
        self._rules = rules
        self._rules_are_new = True
        self._arrived.set()

    async def settle(self) -> None:
        """Have what came so far committed now, but for reports of streams, and return once it is.

        Who sent such a report is told after its commit, and not before. Many callers share one commit.
        Returns also when the database cannot commit: then what is stored is all there is to see for now.
        """
        if self._settled >= self._unanswered or self._error is not None or self._task is None:
            return
        self._hurried = self._unanswered
        self._much.set()
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((self._unanswered, done))
        await done

    @property
    def is_full(self) -> bool:
        return not self._room.is_set()

    async def room(self) -> None:
        """Return once arrivals are welcome again."""
        await self._room.wait()

    async def committed_sequence(self, instance: bytes) -> int:
        """The last report of an agent that is in the store; 0 for a new one. Raises SQLAlchemyError or OSError."""
        async with self._engine.connect() as connection:
            found = await connection.execute(select(agents.c.committed_sequence).where(agents.c.id == instance.hex()))
            return found.scalar() or 0

    def status(self) -> StoreStatus:
        return StoreStatus(
            writer=self._state,
            error=self._error or self._file.trouble(),
            pending_reports=len(self._pending) + len(self._in_flight),
            pending_bytes=self._bytes,
            last_commit_at_ms=self._last_commit_at_ms,
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_prune_s = next_size_s = next_condense_s = loop.time()
        last_flush_s = 0.0
        while not (self._stopping and not self._pending):
            if not self._pending:
                self._state = "idle"
                self._arrived.clear()
                await _wait(self._arrived, min(next_prune_s, next_size_s, next_condense_s) - loop.time())
            if not self._stopping and self._rules_are_new:
                await self._apply_rules()
            if not self._stopping and loop.time() >= next_prune_s:
                next_prune_s = loop.time() + (PRUNE_INTERVAL_S if self._keeps() else ELECTION_INTERVAL_S)
                await self._prune(self._pruner.by_age())
            if not self._stopping and loop.time() >= next_size_s:
                next_size_s = loop.time() + SIZE_INTERVAL_S
                await self._prune(self._pruner.by_size())
            if not self._stopping and loop.time() >= next_condense_s:
                await self._condense()
                if self._spans_are_behind:
                    next_condense_s = loop.time()
                else:
                    next_condense_s = loop.time() + (CONDENSE_INTERVAL_S if self._keeps() else ELECTION_INTERVAL_S)
            if not self._pending:
                continue
            if self._settled >= self._hurried:
                await _wait(self._much, last_flush_s + FLUSH_INTERVAL_S - loop.time())
            last_flush_s = loop.time()
            await self._flush()
        self._ended = True

    async def _flush(self) -> None:
        self._in_flight = batch = self._take()
        await self._write(batch)
        self._settled += len(batch)
        self._tell_waiting(self._settled)

    def _tell_waiting(self, settled: int) -> None:
        while self._waiting and self._waiting[0][0] <= settled:
            _, done = self._waiting.popleft()
            if not done.done():  # its caller may have given up
                done.set_result(None)

    def _take(self) -> list[Arrival]:
        taken: list[Arrival] = []
        cost_bytes = 0
        while self._pending and cost_bytes < FLUSH_BYTES:
            arrival = self._pending.popleft()
            cost_bytes += arrival.size_bytes + _DEFINITION_BYTES * len(arrival.sites)
            taken.append(arrival)
        return taken

    async def _write(self, batch: Sequence[Arrival]) -> None:
        """Commit a batch, however long it takes."""
        retry_s = _FIRST_RETRY_S
        for attempt in itertools.count(1):
            started_s = time.perf_counter()
            try:
                outcome = await self._commit(batch)
            except Exception as error:  # noqa: BLE001 the border to the database: the writer must outlive whatever it is
                if blames_values(error) or (isinstance(error, _DEFECTS) and attempt >= _ATTEMPTS_WITH_DEFECT):
                    await self._write_apart(batch, error)
                    return
                self._failed(error)
                self._file.suspect(error)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 jitter, not a secret
                retry_s = min(retry_s * 2, _LONGEST_RETRY_S)
            else:
                self._succeeded(batch, outcome)
                if self._on_commit is not None:
                    self._on_commit(outcome, time.perf_counter() - started_s)
                return

    async def _write_apart(self, batch: Sequence[Arrival], error: BaseException) -> None:
        """One agent's values are impossible: commit the others', refuse that one's."""
        by_agent: dict[bytes, list[Arrival]] = {}
        for arrival in batch:
            by_agent.setdefault(arrival.identity.instance, []).append(arrival)
        if len(by_agent) > 1:
            for part in by_agent.values():
                await self._write(part)
            return
        self._counters.add("reports_rejected", len(batch))
        self._log.error("reports rejected", agent=batch[0].identity.instance.hex(), error=reason_of(error))
        self._let_go(batch)
        for sender in {id(arrival.sender): arrival.sender for arrival in batch}.values():
            if sender is not None:
                sender.rejected("the database cannot hold the values of a report")

    async def _commit(self, batch: Sequence[Arrival]) -> Outcome:
        self._state = "writing" if self._error is None else "waiting"
        if self._file.trouble() is not None:
            await self._reopen()
        if self._settled < self._hurried:
            self._much.set()  # a question waits for this commit: it is to wait for none
        give_way = GivingWay(self._precedence, GIVE_WAY_S, self._much)
        async with writing(self._engine) as connection:
            now_ms = int(self._clock_s() * 1000)
            transaction = Transaction(
                connection,
                self._memory,
                now_ms=now_ms,
                announcer=self._announcer,
                rules=self._rules,
                give_way=give_way,
            )
            outcome = await transaction.apply(batch)
        self._file.check()  # what was committed into a deleted file is not to be acknowledged
        return outcome

    async def _reopen(self) -> None:
        """Use another file, where the one that was open is gone or damaged. Raises DatabaseError."""
        exchanged = await self._file.reopen()
        self._memory = Memory(self._statements)  # what it knows to be there need not be in another file
        if exchanged and self._on_exchange is not None:
            self._log.warning("the database was replaced by another one, which is used now")
            self._on_exchange()

    def _succeeded(self, batch: Sequence[Arrival], outcome: Outcome) -> None:
        if self._error is not None:
            self._log.info("database usable again")
        self._error = None
        self._last_commit_at_ms = int(self._clock_s() * 1000)
        self._memory.learn(outcome)
        if self._announcer is not None:
            self._announcer.learn(outcome.announced)
        self._counters.add("commits")
        self._counters.add("clocks_clamped", outcome.clocks_clamped)
        self._counters.add("sites_unknown", outcome.sites_unknown)
        self._let_go(batch)
        told = {id(arrival.sender): arrival for arrival in batch if arrival.sender is not None}
        for arrival in told.values():
            if arrival.sender is not None:
                arrival.sender.committed(outcome.committed[arrival.identity.instance])

    def _failed(self, error: BaseException) -> None:
        self._counters.add("commits_failed")
        reason = reason_of(error)
        if reason != self._error:
            self._log.error("commit failed, will be tried again", error=reason)
        self._error = reason
        self._state = "waiting"
        self._tell_waiting(self._offered)

    def _let_go(self, batch: Sequence[Arrival]) -> None:
        """These arrivals need no more care."""
        done = {id(arrival) for arrival in batch}
        self._in_flight = [arrival for arrival in self._in_flight if id(arrival) not in done]
        self._bytes -= sum(arrival.size_bytes for arrival in batch)
        if self._bytes < FLUSH_BYTES and not self._stopping:
            self._much.clear()
        if self._bytes < PENDING_BYTES // 2 and not self._stopping:
            self._room.set()

    def _keeps(self) -> bool:
        """Whether upkeep is to be done by this collector now."""
        return not self._stopping and (self._election is None or self._election.holds(UPKEEP))

    async def _prune(self, transactions: AsyncGenerator[int, None]) -> None:
        """Delete what must go, between commits; a failure waits for the next time."""
        try:
            async with contextlib.aclosing(transactions):
                while self._keeps() and (rows := await anext(transactions, None)) is not None:
                    self._counters.add("rows_pruned", rows)
                    if self._pending:
                        await self._flush()
        except Exception as error:  # noqa: BLE001 the border to the database: old rows do no harm for another while
            self._log.warning("pruning failed", error=reason_of(error))

    async def _apply_rules(self) -> None:
        """Bring what is stored in line with changed rules, between commits; a failure waits for the next round."""
        self._rules_are_new = False
        rules, last = self._rules or Rules(), None
        try:
            while not self._stopping:
                async with writing(self._engine) as connection:
                    hotspot_ids = await next_hotspots(connection, last)
                    await apply_rules(connection, rules, hotspot_ids, int(self._clock_s() * 1000))
                if not hotspot_ids:
                    return
                last = hotspot_ids[-1]
                if self._pending:
                    await self._flush()
        except Exception as error:  # noqa: BLE001 the border to the database: new sites get the rules anyway
            self._rules_are_new = True
            self._log.warning("applying rules failed, will be tried again", error=reason_of(error))

    async def _condense(self) -> None:
        """Sum the spans that are over, between commits; a failure waits for the next time."""
        try:
            self._spans_are_behind = False
            if not self._keeps():
                return
            now_s = int(self._clock_s())
            async with self._engine.connect() as connection:
                wanted = await missing_spans(connection, self._retention, now_s)
            self._spans_are_behind = len(wanted) > SPANS_PER_ROUND
            async with writing(self._engine) as connection:
                claims = await claim_spans(connection, wanted[:SPANS_PER_ROUND])
            for claim in claims:
                if not self._keeps():
                    return
                done = await self._flush_during(self._read_span(claim, now_s))
                async with writing(self._engine) as connection:
                    await finish(connection, done)
                if self._pending:
                    await self._flush()
        except Exception as error:  # noqa: BLE001 the border to the database: without spans answers are only slower
            self._log.warning("summing spans failed", error=reason_of(error))

    async def _read_span(self, claim: Claim, now_s: int) -> Summed:
        async with snapshot(self._engine) as connection:
            return await sum_span(connection, claim, now_s)

    async def _flush_during(self, reading: Coroutine[Any, Any, T]) -> T:
        """Await what only reads; commits go on meanwhile."""
        task = asyncio.get_running_loop().create_task(reading, name="aiocop-collector-reading")
        try:
            while not (task.done() or self._stopping):
                hurried = asyncio.ensure_future(self._much.wait())
                await asyncio.wait({task, hurried}, timeout=FLUSH_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
                if self._pending:
                    await self._flush()
            return await task
        finally:
            task.cancel()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event, or the time is over."""
    if timeout_s > 0:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_s)
