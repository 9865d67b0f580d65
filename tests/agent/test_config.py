"""Where the configuration's values come from, and what is said about bad ones."""

from pathlib import Path

import pytest

from aiocop.config import OPTIONS, Configuration
from aiocop.errors import ConfigurationError
from aiocop.udp_key import UdpKey
from aiocop_wire import UdpAddress, UnixAddress

_KEY_FILE = str(Path(__file__).parent / "udp.key")
_EXAMPLES = {
    "service": ("shop", "shop"),
    "collector": ("udp://127.0.0.1:8718", (UdpAddress("127.0.0.1", 8718),)),
    "environment": ("prod", "prod"),
    "release": ("1.4.0", "1.4.0"),
    "threshold_ms": ("12.5", 12.5),
    "stall_after_ms": ("250", 250.0),
    "enabled": ("off", False),
    "remote_control": ("1", True),
    "overhead_budget_percent": ("0.5", 0.5),
    "application": ("shop, shop_lib.orders ,", ("shop", "shop_lib.orders")),
    "ship_context": ("route, method ,", ("route", "method")),
    "ship_arguments": ("open,subprocess.Popen", ("open", "subprocess.Popen")),
    "udp_key_file": (_KEY_FILE, _KEY_FILE),
    "udp_key": ("correct-horse-battery-staple", UdpKey(b"correct-horse-battery-staple")),
}


def _environ(variable: str, text: str) -> dict[str, str]:
    name, bracket, key = variable.partition("[")
    return {name: f"a=b,{key[:-1]}={text},c=d"} if bracket else {name: text}


def _all_variables() -> list[tuple[str, str]]:
    return [(option.name, variable) for option in OPTIONS for variable in option.variables]


@pytest.mark.parametrize(("name", "variable"), _all_variables())
def test_every_variable_sets_its_option_and_is_named_as_the_origin(name, variable):
    text, expected = _EXAMPLES[name]
    configuration = Configuration.resolve(environ=_environ(variable, text), program="program")
    assert getattr(configuration, name) == expected
    assert configuration.origins[name] == variable
    assert configuration.problems == ()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_earlier_variable_wins_over_a_later_one(option):
    text, expected = _EXAMPLES[option.name]
    environ = {}
    for variable in reversed(option.variables):
        name, value = next(iter(_environ(variable, "other").items()))
        environ[name] = f"{value},{environ[name]}" if name in environ else value
    environ[option.variables[0]] = text
    configuration = Configuration.resolve(environ=environ, program="program")
    assert getattr(configuration, option.name) == expected


def test_arguments_win_over_the_environment():
    environ = {option.variables[0]: _EXAMPLES[option.name][0] for option in OPTIONS}
    configuration = Configuration.resolve(
        "cart",
        collector="unix:///tmp/c.sock",
        environment="staging",
        release="2.0",
        threshold_ms=5,
        stall_after_ms=700,
        enabled=True,
        remote_control=False,
        overhead_budget_percent=2,
        application=["cart"],
        ship_context=["route"],
        ship_arguments=(),
        udp_key_file=_KEY_FILE,
        udp_key="another-key-of-somebody",
        environ=environ,
    )
    assert configuration.service == "cart"
    assert configuration.collector == (UnixAddress("/tmp/c.sock"),)
    assert (configuration.environment, configuration.release) == ("staging", "2.0")
    assert (configuration.threshold_ms, configuration.enabled) == (5.0, True)
    assert configuration.application == ("cart",)
    assert (configuration.ship_context, configuration.ship_arguments) == (("route",), ())
    assert set(configuration.origins.values()) == {"argument"}


def test_defaults():
    configuration = Configuration.resolve(environ={"XDG_RUNTIME_DIR": "/run/user/7"}, program="program")
    assert configuration.service == "program"
    assert configuration.collector == (
        UnixAddress("/run/aiocop/collector.sock"),
        UnixAddress("/run/user/7/aiocop/collector.sock"),
    )
    assert (configuration.environment, configuration.release) == ("", "")
    assert (configuration.threshold_ms, configuration.enabled, configuration.shipping) == (30.0, True, True)
    assert configuration.overhead_budget_percent == 1.0
    assert configuration.application == ()
    assert set(configuration.origins) == {option.name for option in OPTIONS}
    assert set(configuration.origins.values()) == {"default"}


def test_an_empty_variable_is_an_unset_one():
    environ = {option.variables[0]: "" for option in OPTIONS} | {"DD_SERVICE": "shop"}
    configuration = Configuration.resolve(environ=environ, program="program")
    assert configuration.service == "shop"
    assert configuration.problems == ()


def test_the_service_is_named_after_the_program_when_nobody_named_it():
    assert Configuration.resolve(environ={}).service not in ("", "-m", "-c")


def test_resource_attributes_are_percent_decoded():
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.version=1.0%2B%C3%A4%zz"}
    assert Configuration.resolve(environ=environ).release == "1.0+ä%zz"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", ""),
        ("service", 7),
        ("service", "x" * 201),
        ("service", "\udcff"),
        ("collector", "localhost:8718"),
        ("collector", "unix://relative.sock"),
        ("collector", "udp://127.0.0.1"),
        ("collector", "http://127.0.0.1:8717"),
        ("collector", 8718),
        ("threshold_ms", 0),
        ("threshold_ms", -1),
        ("threshold_ms", True),
        ("threshold_ms", float("nan")),
        ("threshold_ms", float("inf")),
        ("threshold_ms", "30"),
        ("enabled", 1),
        ("overhead_budget_percent", -0.1),
        ("overhead_budget_percent", 101),
        ("overhead_budget_percent", float("nan")),
        ("overhead_budget_percent", "1%"),
        ("application", "shop"),
        ("application", ("shop-api",)),
        ("application", (1,)),
        ("ship_context", "route"),
        ("ship_context", ("",)),
        ("ship_arguments", (1,)),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Configuration.resolve(**{name: value}, environ={})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AIOCOP_SERVICE", "x" * 201),
        ("AIOCOP_COLLECTOR", "localhost:8718"),
        ("AIOCOP_THRESHOLD_MS", "30ms"),
        ("AIOCOP_THRESHOLD_MS", "-3"),
        ("AIOCOP_ENABLED", "maybe"),
        ("AIOCOP_APPLICATION", "shop-api"),
    ],
)
def test_a_bad_variable_is_a_problem_and_turns_shipping_off(variable, text):
    configuration = Configuration.resolve(environ={variable: text}, program="program")
    assert configuration.shipping is False
    assert configuration.enabled is True
    (problem,) = configuration.problems
    assert problem.startswith(variable)


def test_a_bad_variable_does_not_matter_where_an_argument_is_given():
    configuration = Configuration.resolve(threshold_ms=5, environ={"AIOCOP_THRESHOLD_MS": "x"})
    assert (configuration.problems, configuration.shipping) == ((), True)


def test_disabled_ships_nothing():
    configuration = Configuration.resolve(environ={"AIOCOP_ENABLED": "0"})
    assert (configuration.enabled, configuration.shipping) == (False, False)


def test_every_option_says_what_it_does():
    for option in OPTIONS:
        assert option.variables[0] == f"AIOCOP_{option.name.upper()}"
        assert option.effect.endswith(".")
        assert option.default


def test_the_key_in_the_file_wins_over_the_key_itself():
    environ = {"AIOCOP_UDP_KEY_FILE": _KEY_FILE, "AIOCOP_UDP_KEY": "another-key-of-somebody"}
    configuration = Configuration.resolve(environ=environ)
    assert configuration.udp_key.reveal() == b"key-in-a-file-for-tests"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AIOCOP_UDP_KEY_FILE": "/nowhere/udp.key"}, "No such file"),
        ({"AIOCOP_UDP_KEY_FILE": __file__}, "openssl rand"),
        ({"AIOCOP_UDP_KEY": "hush"}, "openssl rand"),
    ],
)
def test_a_bad_key_turns_shipping_off_and_is_not_shown(environ, said):
    configuration = Configuration.resolve(environ=environ)
    assert not configuration.shipping
    (problem,) = configuration.problems
    assert said in problem
    assert "hush" not in problem


def test_a_key_is_never_shown():
    with pytest.raises(ConfigurationError, match="at least 16") as caught:
        Configuration.resolve(udp_key="hush", environ={})
    assert "hush" not in str(caught.value)
    configuration = Configuration.resolve(udp_key="correct-horse-battery-staple", environ={})
    assert "correct" not in f"{configuration} {configuration.udp_key} {configuration.udp_key!r}"
