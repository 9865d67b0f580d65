"""What several files of answers share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Values = dict[str, str | int | float | bool | None]
FrameKind = Literal["application", "library", "standard"]


class Answer(BaseModel):
    """What all answers share: they are never changed once made."""

    model_config = ConfigDict(frozen=True)


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
