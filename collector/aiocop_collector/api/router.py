"""The endpoints: each one a question in, an answer out; no logic of its own."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response

from aiocop_collector.answers.control import AgentSettingsAnswer, ServiceSettingsAnswer
from aiocop_collector.answers.diff import DiffAnswer
from aiocop_collector.answers.models import (
    AgentsAnswer,
    HotspotDetail,
    HotspotsAnswer,
    OperationsAnswer,
    ServicesAnswer,
    StallsAnswer,
    Timeline,
)
from aiocop_collector.api.entity_tags import CACHEABLE
from aiocop_collector.api.parameters import (
    AgentSettingsBody,
    AgentsParameters,
    DecisionBody,
    DiffParameters,
    FleetParameters,
    HotspotsParameters,
    NoParameters,
    ServiceSettingsBody,
    ServiceSettingsParameters,
    StallsParameters,
    Text,
    WindowParameters,
)
from aiocop_collector.api.problems import problem_responses
from aiocop_collector.queries import Queries
from aiocop_wire.limits import MAX_NAME

ServiceName = Annotated[Text, Path(min_length=1, max_length=MAX_NAME, description="As agents say.", examples=["shop"])]
AgentId = Annotated[str, Path(description="As in GET /agents.", examples=["0123456789abcdef0123456789abcdef"])]
HotspotId = Annotated[str, Path(description="As in GET /hotspots.", examples=["9f2c61b0a4d7e835"])]

_UNPROCESSABLE = HTTPStatus(422)


async def _kept_by_nobody_else(request: Request, response: Response) -> None:
    # An answer shows what a service is made of, and may be old a second later (see entity_tags.py).
    response.headers["Cache-Control"] = CACHEABLE if request.method == "GET" else "no-store"


def who_asks(request: Request) -> str:
    """The name of the token the request came with; `local` where none is needed."""
    return str(getattr(request.state, "token_name", "local"))


def build_router(queries: Queries) -> APIRouter:
    """Everything that reads the store, and the decisions of people. Errors need `install_problem_handlers`."""
    router = APIRouter(
        dependencies=[Depends(_kept_by_nobody_else)],
        responses=problem_responses(_UNPROCESSABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    of_one = problem_responses(HTTPStatus.NOT_FOUND)

    @router.get("/hotspots", tags=["hotspots"], summary="What freezes our loops")
    async def get_hotspots(parameters: Annotated[HotspotsParameters, Query()]) -> HotspotsAnswer:
        """Call sites (or groups of them) by what they cost in the window, one page at a time."""
        return await queries.hotspots(parameters.hotspots_question())

    @router.get("/hotspots/{hotspot_id}", tags=["hotspots"], summary="One hotspot in full", responses=of_one)
    async def get_hotspot(hotspot_id: HotspotId, parameters: Annotated[WindowParameters, Query()]) -> HotspotDetail:
        """Its sites, lines, entry points, releases, traces, processes and recent slow events."""
        return await queries.hotspot(hotspot_id, parameters.since, parameters.until)

    @router.get("/hotspots/{hotspot_id}/timeline", tags=["hotspots"], summary="One hotspot over time", responses=of_one)
    async def get_timeline(hotspot_id: HotspotId, parameters: Annotated[WindowParameters, Query()]) -> Timeline:
        """What it cost in each bucket of the window."""
        return await queries.timeline(hotspot_id, parameters.since, parameters.until)

    @router.patch("/hotspots/{hotspot_id}", tags=["hotspots"], summary="Decide about a hotspot", responses=of_one)
    async def patch_hotspot(
        hotspot_id: HotspotId,
        body: Annotated[DecisionBody, Body()],
        _parameters: Annotated[NoParameters, Query()],
        request: Request,
    ) -> HotspotDetail:
        """Set its status, note or owner; the answer shows it as it is then, over the last 24 hours.

        A resolved hotspot that comes back in a release first seen after `release` becomes `regressed`; what still comes
        from that release or older ones changes nothing.
        """
        return await queries.decide(hotspot_id, body.decision(), who_asks(request))

    @router.get("/diff", tags=["hotspots"], summary="What a release changed")
    async def get_diff(parameters: Annotated[DiffParameters, Query()]) -> DiffAnswer:
        """Hotspots that are new, gone, worse or better in `head` than in `base`, with a verdict for scripts."""
        return await queries.diff(parameters.question())

    @router.get("/services", tags=["fleet"], summary="Services and what froze them")
    async def get_services(parameters: Annotated[FleetParameters, Query()]) -> ServicesAnswer:
        """One row per service and environment, by blocked time."""
        return await queries.services(parameters.question())

    @router.patch("/services/{name:path}", tags=["fleet"], summary="Control a service's agents", responses=of_one)
    async def patch_service(
        name: ServiceName,
        body: Annotated[ServiceSettingsBody, Body()],
        parameters: Annotated[ServiceSettingsParameters, Query()],
        request: Request,
    ) -> ServiceSettingsAnswer:
        """Pause its agents or part of them, change their threshold and trace depth, ask for a capture of a hotspot.

        Settings are remembered, for agents that connect later and for services nobody has seen yet. They reach agents
        that report over a Unix socket and were started with remote control.
        """
        return await queries.control_service(name, parameters.environment, body.change(), who_asks(request))

    @router.get("/operations", tags=["fleet"], summary="Blocking operations across the fleet")
    async def get_operations(parameters: Annotated[FleetParameters, Query()]) -> OperationsAnswer:
        """One row per operation, by blocked time."""
        return await queries.operations(parameters.question())

    @router.get("/agents", tags=["fleet"], summary="Processes that report")
    async def get_agents(parameters: Annotated[AgentsParameters, Query()]) -> AgentsAnswer:
        """Identity and delivery of each agent: reports received, lost and sent twice, what it had to drop."""
        return await queries.agents(parameters.question())

    @router.patch("/agents/{agent_id}", tags=["fleet"], summary="Control one agent", responses=of_one)
    async def patch_agent(
        agent_id: AgentId,
        body: Annotated[AgentSettingsBody, Body()],
        _parameters: Annotated[NoParameters, Query()],
        request: Request,
    ) -> AgentSettingsAnswer:
        """The same for one process; what is set here wins over its service's settings."""
        return await queries.control_agent(agent_id, body.change(), who_asks(request))

    @router.get("/stalls", tags=["fleet"], summary="Loops that are frozen now")
    async def get_stalls(parameters: Annotated[StallsParameters, Query()]) -> StallsAnswer:
        """What is frozen at this moment, and what ended or died frozen in the window."""
        return await queries.stalls(parameters.stalls_question())

    return router
