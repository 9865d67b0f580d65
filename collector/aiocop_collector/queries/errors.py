"""What can be wrong with a question to the collector.

QuestionError               the root; the API answers each one with an RFC 9457 problem document
├── BadParameterError       a parameter's value cannot be used: 422, naming the parameter
├── UnknownHotspotError     no hotspot has this id: 404
└── UnknownAgentError       no agent has this id: 404
"""


class QuestionError(Exception):
    """A question that cannot be answered as it was asked; its text says why and what to do."""


class BadParameterError(QuestionError):
    """The value of one query parameter or body field cannot be used."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter
        self.message = message


class UnknownHotspotError(QuestionError):
    """No hotspot in the store has the id that was asked for."""

    def __init__(self, hotspot_id: str) -> None:
        super().__init__(f"There is no hotspot {hotspot_id!r:.60}. Ids are in the answers of GET /hotspots.")


class UnknownAgentError(QuestionError):
    """No agent in the store has the id that was asked for."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"There is no agent {agent_id!r:.60}. Ids are in the answers of GET /agents.")
