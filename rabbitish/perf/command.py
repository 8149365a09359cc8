"""`rabbitish perf`: its options, named as RabbitMQ's PerfTest names them, and its exit codes.

2 for options that cannot be used, 1 for what the broker or the network refused, each one line on stderr; 0 otherwise,
also when somebody stops it. Progress goes to stderr, the summary or, with --json, one object to stdout. What runs the
test is imported only when it is to run.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any, NoReturn

import click

from rabbitish.perf.options import OptionError, Options, parse_pairs, parse_properties, parse_uri

_COUNT = click.IntRange(min=0)
_EXIT_CANNOT = 1

_EPILOG = """Rates and numbers of messages are for each producer or consumer. Without -z, -C and -D it runs until it is
stopped. docs/PERF_TOOL.md tells more."""


@click.command(
    context_settings={"help_option_names": ["-?", "--help"], "max_content_width": 110, "show_default": True},
    epilog=_EPILOG,
)
@click.option("-h", "--uri", default="amqp://localhost", metavar="URI", help="amqp://user:password@host:port/vhost")
@click.option("-x", "--producers", type=_COUNT, default=1, help="Producers, each with a connection.")
@click.option("-y", "--consumers", type=_COUNT, default=1, help="Consumers, each with a connection.")
@click.option("-s", "--size", type=_COUNT, default=12, help="Bytes of a body; below 12 no latency is measured.")
@click.option("-r", "--rate", type=click.FloatRange(min=0), default=0, help="Messages a second. 0: no limit")
@click.option("-c", "--confirm", type=_COUNT, default=0, help="Publisher confirms, so many outstanding. 0: none")
@click.option("-a", "--autoack", is_flag=True, help="Automatic acknowledgement.")
@click.option("-A", "--multi-ack-every", type=_COUNT, default=0, help="Acknowledge so many at once. 0: each")
@click.option("-q", "--qos", type=_COUNT, default=0, help="Prefetch count of a consumer. 0: no limit")
@click.option("-Q", "--global-qos", type=_COUNT, default=0, help="Prefetch count of a channel. 0: no limit")
@click.option("-f", "--flag", "flags", type=click.Choice(["persistent", "mandatory"]), multiple=True)
@click.option("--persistent", is_flag=True, help="The same as --flag persistent.")
@click.option("-u", "--queue", default="", help="Queue for all.  [default: each consumer has its own]")
@click.option("--queues", type=click.IntRange(min=1), help="So many queues, QUEUE-1, QUEUE-2 ...; needs --queue.")
@click.option("-qp", "--queue-pattern", default="", help="Many queues, like perf-%d; each takes one in turn.")
@click.option("-qpf", "--queue-pattern-from", type=_COUNT, default=1, help="First number for the pattern.")
@click.option("-qpt", "--queue-pattern-to", type=_COUNT, default=0, help="Last number for the pattern.")
@click.option("-qa", "--queue-args", default="", metavar="KEY=VALUE,...", help="Arguments of the queues.")
@click.option("-ad", "--auto-delete", type=bool, default=True, help="Queues go with their last consumer.")
@click.option("--durable/--transient", "durable", default=None, help="Queues.  [default: as their messages]")
@click.option("-e", "--exchange", help="Exchange; '' is the default exchange.  [default: its type]")
@click.option("-t", "--type", "exchange_type", default="direct", help="Type of the exchange.")
@click.option("-k", "--routing-key", help="Routing key, also of the bindings.  [default: the queue's name]")
@click.option("-p", "--predeclared", is_flag=True, help="Declare and bind nothing: use what is there.")
@click.option("-mp", "--message-properties", default="", metavar="KEY=VALUE,...", help="Properties and headers.")
@click.option("--priority", type=_COUNT, default=0, help="x-max-priority, and messages with all priorities in turn.")
@click.option("-C", "--pmessages", type=_COUNT, default=0, help="Messages to publish. 0: no limit")
@click.option("-D", "--cmessages", type=_COUNT, default=0, help="Messages to consume. 0: no limit")
@click.option("-z", "--time", type=click.FloatRange(min=0), default=0, help="Seconds to run. 0: no limit")
@click.option("--drain", is_flag=True, help="Publish first, then consume all of it; times both.")
@click.option("-ms", "--use-millis", is_flag=True, help="Wall clock in messages: peers on several machines.")
@click.option("-i", "--interval", type=click.FloatRange(min=0.1), default=1, help="Seconds between progress lines.")
@click.option("--json", "as_object", is_flag=True, help="The result as one JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No lines of progress.")
def perf(as_object: bool, quiet: bool, **given: Any) -> None:
    """Publish to and consume from an AMQP 0-9-1 broker, and measure it."""
    try:
        options = to_options(**given)
    except OptionError as error:
        raise click.UsageError(f"{error}.") from None
    _run(options, as_object=as_object, quiet=quiet)


def to_options(
    *,
    uri: str,
    flags: tuple[str, ...],
    persistent: bool,
    queue: str,
    queues: int | None,
    queue_args: str,
    message_properties: str,
    **given: Any,
) -> Options:
    """What the command line adds up to. OptionError: it does not."""
    if queues is not None:
        if not queue or given["queue_pattern"]:
            raise OptionError("--queues numbers the queues of --queue, and nothing else")
        given |= {
            "queue_pattern": f"{queue.replace('%', '%%')}-%d",
            "queue_pattern_from": 1,
            "queue_pattern_to": queues,
        }
        queue = ""
    if queue_args:
        given["queue_args"] = parse_pairs(queue_args)
    if message_properties:
        given["properties"] = parse_properties(message_properties)
    return Options(
        login=parse_uri(uri),
        persistent=persistent or "persistent" in flags,
        mandatory="mandatory" in flags,
        queue=queue,
        **given,
    )


def _run(options: Options, *, as_object: bool, quiet: bool) -> None:
    import trio

    from rabbitish.perf.peer import PeerError
    from rabbitish.perf.report import as_json, summary
    from rabbitish.perf.run import perform

    async def until_done_or_told() -> Any:
        stop = trio.Event()

        async def wait_for_signal() -> None:
            async for _ in signals:
                stop.set()

        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for_signal)
                try:
                    return await perform(options, (lambda _: None) if quiet else _show, stop)
                except PeerError as error:
                    return error
                finally:
                    nursery.cancel_scope.cancel()

    result = trio.run(until_done_or_told)
    if isinstance(result, PeerError):
        _fail(str(result))
    click.echo(json.dumps(as_json(result), indent=2) if as_object else summary(result), nl=as_object)
    if result.failure is not None:
        _fail(result.failure)


def _show(line: str) -> None:
    click.echo(line, err=True)


def _fail(message: str) -> NoReturn:
    click.echo(f"rabbitish: {message}", err=True)
    sys.exit(_EXIT_CANNOT)
