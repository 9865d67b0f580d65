"""What several files of answers share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Values = dict[str, str | int | float | bool | None]
FrameKind = Literal["application", "library", "standard"]


class Answer(BaseModel):
    """What all answers share: they are never changed once made.

    How to serialise one is worked out when the first is asked for, and not when a collector starts. (Parameters cannot
    wait so: pydantic warns of how FastAPI uses them, and FastAPI silences that only while it makes the endpoints.)
    """

    model_config = ConfigDict(frozen=True, defer_build=True)


class FrameAnswer(Answer):
    path: str
    line: int
    function: str
    kind: FrameKind


class HistoryEntry(Answer):
    """One change of a decision or of settings."""

    at: Time
    who: str = Field(
        description="Name of the token, `local` where none is needed, `collector` where activity decided, "
        "`rules` where a rule did."
    )
    changes: dict[str, tuple[str | int | float | bool | None, str | int | float | bool | None]] = Field(
        description="Field to before and after."
    )
