"""Who reports."""

import os

from aiocop.config import Configuration
from aiocop.identity import ProcessIdentity
from aiocop_wire import Hello, decode, encode


def test_it_says_which_process_and_service_it_is_and_asks_for_the_loops_each_time():
    configuration = Configuration.resolve("shop", environment="prod", release="1.4", environ={})
    loops = []
    identity = ProcessIdentity(configuration, lambda: ",".join(loops))
    first = identity()
    assert (first.pid, first.host) == (os.getpid(), os.uname().nodename)
    assert (first.service, first.environment, first.release, first.loop) == ("shop", "prod", "1.4", "")
    loops.append("uvloop")
    assert identity().loop == "uvloop"
    assert identity().instance == first.instance == identity.instance
    assert decode(encode(Hello(first))) == Hello(first)


def test_every_one_is_somebody_new():
    configuration = Configuration.resolve("shop", environ={})
    assert len({ProcessIdentity(configuration, str).instance for _ in range(100)}) == 100
