"""From the database to answers: ranking by counters first, histograms and details only for what a page shows."""

from aiocop_collector.queries.control import SettingsChange
from aiocop_collector.queries.diff import DiffQuestion
from aiocop_collector.queries.fleet import AgentsQuestion, FleetQuestion
from aiocop_collector.queries.hotspots import HotspotsQuestion
from aiocop_collector.queries.questions import Queries
from aiocop_collector.queries.stalls import StallsQuestion
from aiocop_collector.queries.triage import Decision

__all__ = [
    "AgentsQuestion",
    "Decision",
    "DiffQuestion",
    "FleetQuestion",
    "HotspotsQuestion",
    "Queries",
    "SettingsChange",
    "StallsQuestion",
]
