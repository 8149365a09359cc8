"""The fixtures in test runs of their own: what they cost, what they leave behind, failures that tell, xdist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = "pytester"

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor ours by its entry point, since it need not be installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    # What another test left behind is found when the collector gets to it, which may be here.
    warnings = ("-W", "error", "-W", "default::ResourceWarning")
    return pytester.runpytest("-p", "rabbitish.testing.plugin", *warnings, *options)


def test_who_uses_no_fixture_pays_for_none() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import rabbitish.testing.plugin; "
        "print(*sorted(name for name in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rabbitish", "rabbitish.testing", "rabbitish.testing.plugin"]


def test_names_are_there_when_they_are_used() -> None:
    from rabbitish import testing

    for name in testing.__all__:
        assert getattr(testing, name).__module__.startswith("rabbitish.testing.")
    with pytest.raises(AttributeError, match="has no attribute 'Rabbit'"):
        _ = testing.Rabbit


def test_each_test_has_a_virtual_host_and_all_have_a_broker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import pika, trio, pytest

        seen = []

        def leave_something(rabbitish_broker, rabbitish_url, rabbitish_vhost):
            assert rabbitish_url == rabbitish_broker.url
            assert rabbitish_vhost.queues == rabbitish_vhost.connections == []
            assert rabbitish_vhost.url not in seen
            seen.append(rabbitish_vhost.url)
            assert len({url.rpartition("/")[0] for url in seen}) == 1
            with pika.BlockingConnection(pika.URLParameters(rabbitish_vhost.url)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                channel.queue_declare("q")
                channel.basic_publish("", "q", b"m")
            rabbitish_vhost.fail_next_publish()
            rabbitish_broker.fail_next_publish()
            rabbitish_broker.block()
            rabbitish_broker.refuse_connections()

        def test_sync(rabbitish_broker, rabbitish_url, rabbitish_vhost):
            leave_something(rabbitish_broker, rabbitish_url, rabbitish_vhost)

        def test_asyncio(rabbitish_broker, rabbitish_url, rabbitish_vhost):
            async def test():
                leave_something(rabbitish_broker, rabbitish_url, rabbitish_vhost)
            asyncio.run(test())

        def test_trio(rabbitish_broker, rabbitish_url, rabbitish_vhost):
            async def test():
                leave_something(rabbitish_broker, rabbitish_url, rabbitish_vhost)
            trio.run(test)

        def test_nothing_is_left(rabbitish_broker):
            assert rabbitish_broker.connections == []
            with pytest.raises(LookupError):
                rabbitish_broker.vhost("test-1").queues
        """
    )
    run(pytester).assert_outcomes(passed=4)


def test_options_are_overridden(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def rabbitish_options():
            return {"frozen": True, "default_vhost": "shop"}
        """
    )
    pytester.makepyfile(
        """
        def test(rabbitish_broker, rabbitish_url):
            assert rabbitish_url.endswith("/shop")
            assert rabbitish_broker.default_vhost == "shop"
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_a_failure_shows_the_log_of_the_broker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pika

        def test_with_a_broker(rabbitish_vhost):
            pika.BlockingConnection(pika.URLParameters(rabbitish_vhost.url)).close()
            assert not rabbitish_vhost.queues, "fine so far"
            assert rabbitish_vhost.queue("q").ready == 1

        def test_without():
            assert False
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*LookupError: there is no queue 'q' in 'test-1', only*", "*- rabbitish log -*"])
    result.stdout.fnmatch_lines(["*info connection closed*vhost=test-1*"])
    assert result.stdout.str().count("rabbitish log") == 1


def test_the_broker_is_imported_as_it_is(pytester: pytest.Pytester) -> None:
    """As far as a distribution with a plugin is concerned pytest would rewrite all of it."""
    pytester.makeconftest("import pytest\npytest.register_assert_rewrite('rabbitish.server', 'rabbitish.perf')")
    pytester.makepyfile(
        """
        import sys

        def test(rabbitish_broker):
            import rabbitish.perf.stats  # as anybody else imports it
            rewriting = type(rabbitish.perf.stats.__loader__)
            assert rewriting.__name__ == "AssertionRewritingHook"
            server = [module for name, module in sys.modules.items() if name.startswith("rabbitish.server")]
            assert len(server) > 5
            assert not any(isinstance(module.__loader__, rewriting) for module in server)
        """
    )
    pytester.runpytest_subprocess("-p", "rabbitish.testing.plugin").assert_outcomes(passed=1)


def test_workers_of_xdist_have_brokers_of_their_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pika, pytest

        @pytest.mark.parametrize("number", range(12))
        def test(rabbitish_vhost, rabbitish_broker, number, worker_id):
            with pika.BlockingConnection(pika.URLParameters(rabbitish_vhost.url)) as connection:
                connection.channel().queue_declare("q")
            assert [queue.name for queue in rabbitish_vhost.queues] == ["q"]
            with open(f"port-{worker_id}", "a") as ports:
                print(rabbitish_broker.port, file=ports)
        """
    )
    run(pytester, "-p", "xdist", "-n", "2", "--dist", "each").assert_outcomes(passed=24)
    ports = [set(path.read_text().split()) for path in pytester.path.glob("port-gw*")]
    assert len(ports) == 2
    assert len(set.union(*ports)) == 2
