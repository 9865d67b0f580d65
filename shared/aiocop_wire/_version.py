"""The version of the one distribution that holds agent, wire and collector."""

__version__ = "0.1.0"
