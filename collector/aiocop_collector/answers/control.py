"""What people want of agents and what holds in them, as `/services`, `/agents` and `/hotspots` answer it."""

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from aiocop_collector.answers.base import Answer, FrameAnswer, HistoryEntry, Time, Values

Unreachable = Literal["udp", "not_allowed", "gone"]
CaptureState = Literal["waiting", "captured", "cancelled", "expired"]

_OWN: Final = "null: the agent's own."


class WantedOfAgent(Answer):
    """What is wanted of one agent."""

    active: bool | None = Field(description=f"false: paused; {_OWN}")
    threshold_ms: float | None = Field(description=_OWN)
    trace_depth: int | None = Field(description=_OWN)


class WantedOfService(WantedOfAgent):
    """What is wanted of the agents of a service."""

    active_share: float | None = Field(
        description="Which part of the agents is active, chosen by their ids: a larger part contains a smaller one."
    )


class InForce(Answer):
    """What an agent says it does, whether it was told to or does so by itself."""

    revision: int = Field(description="Of the settings it has taken; 0 for none.")
    active: bool
    threshold_ms: float
    trace_depth: int
    refused: str = Field(description="Why it did not take all that was wanted; empty where it did.")
    at: Time = Field(description="When it said so.")


class AgentControl(Answer):
    """Settings of one agent."""

    reachable: bool = Field(description="Whether the agent can be told anything.")
    unreachable: Unreachable | None = Field(
        description="Why not. udp: nothing goes to an agent that reports over udp; not_allowed: it was started without "
        "remote_control, or is older; gone: it said farewell, or nothing for a minute."
    )
    wanted: WantedOfAgent = Field(description="By its own settings, else its service's.")
    revision: int = Field(description="At which that was changed last; 0 where nothing was ever wanted.")
    in_force: InForce | None = Field(description="null: it never said.")


class ControlledAgents(Answer):
    """How many agents of a service do what is wanted; of those that reported within the last minute."""

    reachable: int
    in_force: int = Field(description="Of the reachable ones, those that have taken the latest settings.")
    active: int = Field(description="Those that measure, of all that said.")


class ServiceControl(Answer):
    """Settings of a service in one environment."""

    wanted: WantedOfService
    revision: int
    changed_at: Time | None
    changed_by: str | None = Field(description="Name of the token; `local` where none is needed.")
    agents: ControlledAgents


class CaptureMoment(Answer):
    """One blocking call of a captured slice, or one look at it while it ran."""

    at_ms: float = Field(description="When it began, after the start of the slice.")
    blocked_ms: float | None = Field(description="Without the calls inside it; null for a look.")
    site_id: str | None = Field(description="null for a look.")
    trace: int | None = Field(description="Index in `traces`; null where none was kept.")


class CapturedSlice(Answer):
    """One over-threshold slice in full."""

    started_at: Time
    elapsed_ms: float
    threshold_ms: float
    cause: str
    task_name: str
    thread_name: str
    loop: str
    cpu_ms: float | None
    gc_ms: float
    context: Values
    moments: list[CaptureMoment] = Field(description="In order of time.")
    traces: list[list[FrameAnswer]] = Field(description="Whole stacks, innermost frame first.")


class CaptureAnswer(Answer):
    """A slice that was asked for in detail, and what came."""

    id: str
    hotspot: str
    state: CaptureState = Field(description="expired: nothing slow came within an hour.")
    requested_at: Time
    requested_by: str
    captured_at: Time | None
    agent: str | None = Field(description="Who captured it.")
    slice: CapturedSlice | None


_EXAMPLE_CAPTURE: Final[dict[str, Any]] = {
    "id": "51c0b7a2d4e69f83",
    "hotspot": "9f2c61b0a4d7e835",
    "state": "waiting",
    "requested_at": "2026-01-31T12:00:00Z",
    "requested_by": "ci",
    "captured_at": None,
    "agent": None,
    "slice": None,
}
_EXAMPLE_HISTORY: Final[list[Any]] = [
    {"at": "2026-01-31T12:00:00Z", "who": "ci", "changes": {"threshold_ms": [None, 10.0]}}
]


class SettingsAnswer(Answer):
    """What the answers about settings share."""

    revision: int = Field(description="At which it was changed last; 0 where nothing was ever wanted.")
    changed_at: Time | None
    changed_by: str | None = Field(description="Name of the token; `local` where none is needed.")
    captures: list[CaptureAnswer] = Field(description="Asked for here, the latest first, at most 20.")
    history: list[HistoryEntry] = Field(description="Who changed what, the latest first, at most 100.")


class ServiceSettingsAnswer(SettingsAnswer):
    """`PATCH /services/{name}`: the settings as they are then."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "shop",
                "environment": "prod",
                "wanted": {"active": None, "threshold_ms": 10.0, "trace_depth": None, "active_share": 0.1},
                "revision": 7,
                "changed_at": "2026-01-31T12:00:00Z",
                "changed_by": "ci",
                "agents": {"reachable": 40, "in_force": 38, "active": 4},
                "captures": [_EXAMPLE_CAPTURE],
                "history": _EXAMPLE_HISTORY,
            }
        }
    )

    name: str
    environment: str | None = Field(description="null: all of them, where none has settings of its own.")
    wanted: WantedOfService = Field(description="At this level only.")
    agents: ControlledAgents


class AgentSettingsAnswer(SettingsAnswer):
    """`PATCH /agents/{agent_id}`: the settings as they are then."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0123456789abcdef0123456789abcdef",
                "service": "shop",
                "environment": "prod",
                "wanted": {"active": None, "threshold_ms": 10.0, "trace_depth": None},
                "control": {
                    "reachable": True,
                    "unreachable": None,
                    "wanted": {"active": None, "threshold_ms": 10.0, "trace_depth": 64},
                    "revision": 7,
                    "in_force": {
                        "revision": 6,
                        "active": True,
                        "threshold_ms": 30.0,
                        "trace_depth": 64,
                        "refused": "",
                        "at": "2026-01-31T11:59:00Z",
                    },
                },
                "revision": 7,
                "changed_at": "2026-01-31T12:00:00Z",
                "changed_by": "ci",
                "captures": [_EXAMPLE_CAPTURE],
                "history": _EXAMPLE_HISTORY,
            }
        }
    )

    id: str
    service: str
    environment: str
    wanted: WantedOfAgent = Field(description="Of this agent only.")
    control: AgentControl = Field(description="What holds for it, with its service's settings.")
