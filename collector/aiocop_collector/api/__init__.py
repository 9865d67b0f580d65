"""The HTTP API: parameters checked at one border, answers as documented, errors as problem documents (RFC 9457)."""

from aiocop_collector.api.problems import install_problem_handlers
from aiocop_collector.api.router import build_router

__all__ = ["build_router", "install_problem_handlers"]
