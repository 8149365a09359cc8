"""What a run declares before it starts, and takes back when it is over: conversations of a peer with the broker.

Where all queues are to go with their consumers, they are deleted at the end even if the consumers never came, and so is
the exchange if it was not there before. Whoever tries the tool with its defaults leaves nothing behind.
"""

from __future__ import annotations

from rabbitish.errors import ReplyCode
from rabbitish.perf.options import Login
from rabbitish.perf.peer import CHANNEL, Peer, Refused, Script, ask, say
from rabbitish.perf.plan import Plan
from rabbitish.wire import methods
from rabbitish.wire.method import Method


class Declarer(Peer):
    """Declares what a plan asks for; ready when all of it is there."""

    def __init__(self, login: Login, plan: Plan) -> None:
        super().__init__(login)
        self.plan = plan
        self.names: list[str] = []
        """The queues' names, as the broker knows them."""
        self.waiting = 0
        """How many messages were in them already."""
        self.clean = False
        self._new_exchange = False

    def script(self) -> Script[None]:
        """See Peer."""
        plan, options = self.plan, self.plan.options
        if plan.declares_exchange:
            self._new_exchange = yield from self._exchange()
        for name in plan.queues:
            declare = methods.QueueDeclare(
                queue=name,
                passive=options.predeclared,
                durable=options.queue_is_durable,
                auto_delete=options.auto_delete,
                arguments=plan.queue_arguments,
            )
            declared = yield from ask(declare, methods.QueueDeclareOk)
            self.names.append(declared.queue)
            self.waiting += declared.message_count
            if plan.exchange and not options.predeclared:
                bind = methods.QueueBind(
                    queue=declared.queue, exchange=plan.exchange, routing_key=plan.binding_key(declared.queue)
                )
                yield from ask(bind, methods.QueueBindOk)

    def _exchange(self) -> Script[bool]:
        """Declare the exchange; whether it is new."""
        name, kind = self.plan.exchange, self.plan.options.exchange_type
        try:
            yield from ask(methods.ExchangeDeclare(exchange=name, type=kind, passive=True), methods.ExchangeDeclareOk)
            new = False
        except Refused as refused:
            if refused.code != ReplyCode.NOT_FOUND:
                raise
            new = True
            yield from self._open_again()
        yield from ask(methods.ExchangeDeclare(exchange=name, type=kind, durable=True), methods.ExchangeDeclareOk)
        return new

    def _open_again(self) -> Script[None]:
        opening = methods.ChannelCloseOk().frame(CHANNEL) + methods.ChannelOpen().frame(CHANNEL)
        yield from say(opening, methods.ChannelOpenOk)

    def clean_up(self) -> None:
        """Delete what was made for this run alone; `clean` when nothing of it is left."""
        self.run_script(self._take_back())

    def _take_back(self) -> Script[None]:
        clean = True
        if not self.plan.leaves_queues and not self.plan.options.predeclared:
            for name in self.names:
                delete = methods.QueueDelete(queue=name, if_unused=True)
                clean &= yield from self._try(delete, methods.QueueDeleteOk)
            if self._new_exchange:
                unused = methods.ExchangeDelete(exchange=self.plan.exchange, if_unused=True)
                clean &= yield from self._try(unused, methods.ExchangeDeleteOk)
        self.clean = clean

    def _try(self, method: Method, answer: type[Method]) -> Script[bool]:
        """Whether the broker did it."""
        try:
            yield from ask(method, answer)
        except Refused:  # somebody uses it
            yield from self._open_again()
            return False
        return True
