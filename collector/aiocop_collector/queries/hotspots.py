"""`GET /hotspots`: rank, then read what the page needs, then say where it ended."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import HotspotsAnswer, WindowAnswer
from aiocop_collector.answers.words import GroupBy
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries import cursors
from aiocop_collector.queries.cursors import Cursor
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import GROUPINGS, Order, Sort
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.ranking import Page, rank
from aiocop_collector.queries.rows import rows_of
from aiocop_collector.queries.scope import open_scope
from aiocop_collector.queries.windows import Window, parse_window
from aiocop_collector.store.horizons import load_horizons


@dataclass(frozen=True, slots=True)
class HotspotsQuestion:
    """The parameters of `GET /hotspots`, as they came."""

    since: str | None = None
    until: str | None = None
    filters: Filters = field(default_factory=Filters)
    group_by: GroupBy = "call_site"
    sort: Sort = "blocked_time"
    order: Order = "desc"
    limit: int = 50
    cursor: str | None = None

    @property
    def digest(self) -> str:
        """Of all that decides which rows there are and how they are ordered."""
        return cursors.question_digest(self.since, self.until, self.filters, self.group_by, self.sort, self.order)


def window_answer(window: Window) -> WindowAnswer:
    return WindowAnswer(
        since=to_rfc3339(window.since_s * 1000),
        until=to_rfc3339(window.until_s * 1000),
        resolution_s=window.resolution.seconds,
    )


async def ask_hotspots(
    connection: AsyncConnection, memory: Memory, question: HotspotsQuestion, now_s: float
) -> HotspotsAnswer:
    """Raises BadParameterError for a time or a cursor that cannot be used."""
    grouping = GROUPINGS[question.group_by]
    horizons = await load_horizons(connection)
    window = parse_window(question.since, question.until, now_s, horizons)
    cursor = None
    if question.cursor is not None:
        cursor = cursors.from_text(question.cursor, question.digest, grouping, question.sort)
        window = cursor.window
    scope = await open_scope(connection, memory, window, question.filters, grouping, now_s, horizons)
    page = await rank(connection, scope, question.sort, question.order, question.limit, cursor)
    return HotspotsAnswer.model_construct(
        window=window_answer(window),
        group_by=question.group_by,
        total=page.total,
        next_cursor=_next_cursor(question, window, page),
        hotspots=await rows_of(connection, scope, page),
    )


def _next_cursor(question: HotspotsQuestion, window: Window, page: Page) -> str | None:
    if not page.has_more:
        return None
    last = page.ranked[-1]
    return cursors.to_text(Cursor(window, last.sort_value, last.key), question.digest)
