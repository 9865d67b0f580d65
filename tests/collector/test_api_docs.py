"""docs/api.md names every endpoint, parameter, field, metric and event there is, and its file of settings is one."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from aiocop_collector.answers.control import AgentSettingsAnswer, ServiceSettingsAnswer
from aiocop_collector.answers.diff import EXAMPLE_DIFF, DiffAnswer
from aiocop_collector.answers.examples import EXAMPLE_DETAIL
from aiocop_collector.answers.models import HotspotDetail
from aiocop_collector.app import create_app
from aiocop_collector.config_file import Event, Webhook, read_config
from aiocop_collector.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))

CONTROL = (ServiceSettingsAnswer, AgentSettingsAnswer)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    return create_app(Settings(database=f"sqlite:///{folder}/c.sqlite3")).openapi()


def fields_of_body(document, operation) -> list[str]:
    if "requestBody" not in operation:
        return []
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return list(document["components"]["schemas"][reference.rpartition("/")[2]]["properties"])


def test_every_endpoint_and_parameter_is_documented(document):
    described = {
        f"{method.upper()} {path}": [
            *[one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"],
            *fields_of_body(document, operation),
        ]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert SECTIONS.keys() == described.keys()
    for title, names in described.items():
        rows = re.findall(r"^\| `(\w+)`(?: \(required\))? \|", SECTIONS[title], re.MULTILINE)
        if title != "GET /metrics":
            assert rows == names, title


def test_every_status_that_is_declared_is_documented(document):
    declared = {
        status
        for operations in document["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
        if status != "200"
    }
    assert declared <= set(re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE))


def test_every_metric_is_documented():
    source = (Path(__file__).resolve().parents[2] / "collector/aiocop_collector/metrics.py").read_text()
    names = set(re.findall(r'"(aiocop_[a-z_]+)"', source))
    documented = {
        name.removesuffix("_total")
        for name in re.findall(r"^\| `(aiocop_\w+)` \|", SECTIONS["GET /metrics"], re.MULTILINE)
    }
    assert names == documented


def test_the_configuration_shown_is_one(tmp_path):
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "collector.toml"
    path.write_text(text)
    configuration, settings = read_config(path, Settings.model_fields)
    assert not settings
    (webhook,) = configuration.webhooks
    assert set(Webhook.model_fields) - {"secret_env"} == webhook.model_fields_set
    assert configuration.budgets[0].model_fields_set == set(type(configuration.budgets[0]).model_fields)
    assert set(re.findall(r"^\| `(\w+)` \| .*$", PAGE.partition("| Event |")[2], re.MULTILINE)) == set(get_args(Event))


def without_nulls(value):
    """As the OpenAPI document shows a value: without the keys that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (HotspotDetail, EXAMPLE_DETAIL),
        (DiffAnswer, EXAMPLE_DIFF),
        *[(model, model.model_config["json_schema_extra"]["example"]) for model in CONTROL],
    ],
)
def test_examples_fit_their_models(document, model, example):
    assert example.keys() == model.model_fields.keys()
    model.model_validate(example)
    shown = document["components"]["schemas"][model.__name__]["example"]
    assert shown == without_nulls(json.loads(json.dumps(example)))
