"""The parameters of each question, as OpenAPI shows them: unknown names and values are refused, never ignored."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from aiocop_collector.answers.words import GroupBy, Reason, Status
from aiocop_collector.arrivals import StallState
from aiocop_collector.queries import (
    AgentsQuestion,
    Decision,
    DiffQuestion,
    FleetQuestion,
    HotspotsQuestion,
    SettingsChange,
    StallsQuestion,
)
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Order, Sort

_MAX_REPEATS: Final = 100
_MAX_TEXT: Final = 1_024
_MAX_NOTE: Final = 10_000
_MAX_MS_PER_HOUR: Final = 1_000_000_000_000


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a text must not contain NUL characters")
    return text


Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT), AfterValidator(_storable)]
Names = Annotated[list[Text], Field(max_length=_MAX_REPEATS)]
Time = Annotated[str, Field(max_length=64)]

_SINCE: Final = "An age (`15m`, `24h`, `7d`) or an RFC 3339 time. Default: a day before `until`."
_UNTIL: Final = "Exclusive; like `since`. Default: now."


class Parameters(BaseModel):
    """What all questions share: a parameter nobody knows is an error, because ignoring it would answer another one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WindowParameters(Parameters):
    """A stretch of time. It is widened to whole buckets, and the answer says to which."""

    since: Time | None = Field(None, description=_SINCE, examples=["1h"])
    until: Time | None = Field(None, description=_UNTIL)


class FleetParameters(WindowParameters):
    """`GET /services` and `GET /operations`."""

    service: Names = Field([], description="Only these services; may be repeated.")
    environment: Names = Field([], description="Only these environments; may be repeated.")

    def question(self) -> FleetQuestion:
        return FleetQuestion(self.since, self.until, tuple(self.service), tuple(self.environment))


class HotspotsParameters(FleetParameters):
    """`GET /hotspots`: values of one filter are alternatives, filters are combined."""

    release: Names = Field([], description="Only what happened in these releases; may be repeated.")
    operation: Names = Field([], description="Only these operations, such as `open`; may be repeated.")
    reason: Annotated[list[Reason], Field(max_length=_MAX_REPEATS)] = Field([], description="May be repeated.")
    status: Annotated[list[Status], Field(max_length=_MAX_REPEATS)] = Field(
        [], description="May be repeated. Default: everything but ignored."
    )
    q: Names = Field(
        [], description="Part of the call site, the entry point or the operation; upper and lower case are the same."
    )
    group_by: GroupBy = Field("call_site", description="What one row stands for.")
    sort: Sort = Field("blocked_time", description="What rows are ordered by.")
    order: Order = "desc"
    limit: int = Field(50, ge=1, le=1000, description="Rows on one page.")
    cursor: str | None = Field(None, max_length=16_384, description="`next_cursor` of the page before.")

    def hotspots_question(self) -> HotspotsQuestion:
        return HotspotsQuestion(
            since=self.since,
            until=self.until,
            filters=Filters(
                service=tuple(self.service),
                environment=tuple(self.environment),
                release=tuple(self.release),
                operation=tuple(self.operation),
                reason=tuple(self.reason),
                status=tuple(self.status),
                q=tuple(text for text in self.q if text),
            ),
            group_by=self.group_by,
            sort=self.sort,
            order=self.order,
            limit=self.limit,
            cursor=self.cursor,
        )


class DiffParameters(WindowParameters):
    """`GET /diff`: two releases of one service, or two stretches of time."""

    base: Text = Field(description="A release, or `FROM/UNTIL` with ages or RFC 3339 times.", examples=["1.4.0"])
    head: Text = Field(description="What is compared with it, likewise.", examples=["1.5.2"])
    service: Names = Field([], description="Only these services; with releases, exactly one.", examples=[["shop"]])
    environment: Names = Field([], description="Only these environments; may be repeated.")
    since: Time | None = Field(None, description="With releases: what happened from then on. Default: 30 days ago.")
    until: Time | None = Field(None, description="With releases: exclusive. Default: now.")
    per: Literal["hour", "slice"] = Field(
        "hour", description="Compare blocked time per hour of a process, or per slice, where slices are known."
    )
    worse_ratio: float = Field(
        1.5, ge=1, le=1_000_000, description="A rate that grew (or shrank) by more than this factor is worse (better)."
    )
    min_ms_per_hour: float = Field(
        100, ge=0, le=3_600_000, description="Changes of less blocked time per process and hour are the same."
    )
    min_minutes: float = Field(
        1, ge=0, le=1_000_000, description="A side with less process time than this makes the comparison unknown."
    )
    limit: int = Field(100, ge=1, le=1000, description="Hotspots listed of each kind; counts are of all.")

    def question(self) -> DiffQuestion:
        return DiffQuestion(
            self.base,
            self.head,
            tuple(self.service),
            tuple(self.environment),
            self.since,
            self.until,
            self.per,
            self.worse_ratio,
            self.min_ms_per_hour,
            self.min_minutes,
            self.limit,
        )


class AgentsParameters(Parameters):
    """`GET /agents`."""

    since: Time | None = Field(None, description="Only agents that reported since then. Default: all that are known.")
    service: Names = Field([], description="Only of these services; may be repeated.")
    environment: Names = Field([], description="Only in these environments; may be repeated.")
    limit: int = Field(1000, ge=1, le=1000, description="Agents listed, the most recently seen first.")

    def question(self) -> AgentsQuestion:
        return AgentsQuestion(self.since, tuple(self.service), tuple(self.environment), self.limit)


class StallsParameters(FleetParameters):
    """`GET /stalls`. The window is about when something was frozen, to the millisecond."""

    state: Annotated[list[StallState], Field(max_length=_MAX_REPEATS)] = Field([], description="May be repeated.")
    limit: int = Field(100, ge=1, le=1000, description="Stalls listed.")

    def stalls_question(self) -> StallsQuestion:
        return StallsQuestion(
            self.since, self.until, tuple(self.service), tuple(self.environment), tuple(self.state), self.limit
        )


class ServiceSettingsParameters(Parameters):
    """`PATCH /services/{name}`."""

    environment: Text | None = Field(
        None,
        description="Only this one; empty: agents that name none. Default: all without settings of their own.",
    )


class NoParameters(Parameters):
    """Where nothing can be asked beyond the path."""


class DecisionBody(Parameters):
    """`PATCH /hotspots/{id}`: what is left out stays as it is."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"status": "resolved", "release": "1.5.2", "note": "httpx since 1.5.3", "owner": "team-orders"},
                {"status": "ignored", "until": "30d", "below_ms_per_hour": 5000},
                {"status": "open"},
            ]
        },
    )

    status: Literal["open", "resolved", "ignored"] | None = Field(
        None, description="`regressed` is not set by hand: a resolved hotspot that comes back becomes it."
    )
    release: Text | None = Field(
        None,
        description="With `resolved`: the last release that may still have it. Default: the newest it was seen in.",
    )
    until: Time | None = Field(
        None, description="With `ignored`: an RFC 3339 time, or an age from now (`30d`). Activity after it reopens it."
    )
    below_ms_per_hour: int | None = Field(
        None,
        ge=1,
        le=_MAX_MS_PER_HOUR,
        description="With `ignored`: more blocked time than this within 60 minutes reopens it.",
    )
    note: Annotated[str, StringConstraints(max_length=_MAX_NOTE), AfterValidator(_storable)] | None = Field(
        None, description="Replaces the note."
    )
    owner: Text | None = Field(None, description="Who looks after it; empty for nobody.")

    def decision(self) -> Decision:
        return Decision(self.status, self.release, self.until, self.below_ms_per_hour, self.note, self.owner)


class SettingsBody(Parameters):
    """What all settings share: what is left out stays as it is, null takes it back."""

    active: bool | None = Field(None, description="false: pause. The agent measures nothing and stays connected.")
    threshold_ms: float | None = Field(
        None, ge=1, le=600_000, description="Slices that hold their loop longer than this are slow."
    )
    trace_depth: int | None = Field(
        None, ge=1, le=64, description="Frames of a trace that are kept, those of application code aside."
    )
    capture: Text | None = Field(
        None,
        description="Id of a hotspot: show its next slow slice in detail, once, within an hour. null: wait no more.",
    )

    def change(self) -> SettingsChange:
        given = self.model_dump(include=self.model_fields_set - {"capture"})
        return SettingsChange(given, "capture" in self.model_fields_set, self.capture)


class AgentSettingsBody(SettingsBody):
    """`PATCH /agents/{agent_id}`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"trace_depth": 64, "capture": "9f2c61b0a4d7e835"}, {"active": None}]},
    )


class ServiceSettingsBody(SettingsBody):
    """`PATCH /services/{name}`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"active_share": 0.1}, {"threshold_ms": 10, "trace_depth": None}, {"active": False}]
        },
    )

    active_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Which part of the agents is active, the others are paused; takes the place of `active`. Chosen by "
        "their ids: raising it keeps those that are.",
    )
