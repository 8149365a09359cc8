"""A client that declares, binds, dead-letters and deletes until the broker is killed, and knows what must be left."""

from __future__ import annotations

import threading
from random import Random

from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties
from tests.server.crash import Ended, Peer

GRAVES = "graves"
PROBE = b"a probe"
_SOON = Properties(expiration="0").encode()
_GONE_KEPT = 30  # of what is gone so much is looked for again after each kill
_STANDING = 8  # more of it are torn down

Thing = tuple[str, str]
"""What it is ("queue", "exchange" or "binding"), and the name of the three that are made together."""


class Builder:
    """Its book: what is there (None: that is not certain), and where each message is (None: the same)."""

    def __init__(self) -> None:
        self.known: dict[Thing, bool | None] = {}
        self.letters: dict[bytes, str | None] = {}
        self.built = self.torn_down = 0
        self.working = threading.Event()  # something was torn down in this round
        self._random = Random(7)
        self._tearing: tuple[str, str, bool] | None = None  # what is being deleted, and whether it was bound

    def begin(self, peer: Peer) -> None:
        """Once, before anything else."""
        peer.declare(GRAVES)

    def work(self, peer: Peer) -> None:
        """Build and tear down until the broker is gone."""
        try:
            peer.ask(methods.ConfirmSelect())
            while True:
                self._build(peer)
                standing = [name for (what, name), there in self.known.items() if what == "queue" and there]
                while len(standing) > self._random.randint(0, _STANDING):
                    self._tear_down(peer, standing.pop(self._random.randrange(len(standing))))
                    self.working.set()
        except Ended:
            pass
        finally:
            peer.close()

    def _ask(self, peer: Peer, method: Method, there: bool, *things: Thing) -> None:
        for thing in things:
            self.known[thing] = None
        heard = peer.ask(method)
        assert type(heard.method).__name__ == type(method).__name__ + "Ok", heard
        for thing in things:
            self.known[thing] = there

    def _build(self, peer: Peer) -> None:
        self.built += 1
        name = f"thing {self.built}"
        declare = methods.ExchangeDeclare(exchange=name, type="topic", durable=True)
        self._ask(peer, declare, True, ("exchange", name))
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": GRAVES}
        self._ask(peer, methods.QueueDeclare(queue=name, durable=True, arguments=arguments), True, ("queue", name))
        self._ask(peer, methods.QueueBind(queue=name, exchange=name, routing_key="#"), True, ("binding", name))
        bodies = [b"%d of %s" % (number, name.encode()) for number in range(2)]
        self.letters.update(dict.fromkeys(bodies))
        peer.confirm(name, *bodies)
        self.letters[bodies[1]] = name
        heard = peer.ask(methods.BasicGet(queue=name))
        assert isinstance(heard.method, methods.BasicGetOk) and heard.body == bodies[0], heard
        peer.send(methods.BasicReject(delivery_tag=heard.method.delivery_tag, requeue=False))
        peer.ask(methods.QueueDeclare(queue=GRAVES, passive=True))  # by now it is there, if only in memory
        # Whose answer waits for the disk, and everything before it is there then.
        peer.ask(methods.QueueBind(queue=name, exchange=name, routing_key="never"))
        self.letters[bodies[0]] = GRAVES

    def _tear_down(self, peer: Peer, name: str) -> None:
        queue, exchange, binding = (("queue", name), ("exchange", name), ("binding", name))
        bound = bool(self.known[binding])
        ways = ["queue"]
        if self.known[exchange]:
            ways.append("exchange")
        if bound:
            ways.append("binding")
        what = self._random.choice(ways)
        self._tearing = what, name, bound
        if what == "queue":
            lost = [body for body, place in self.letters.items() if place == name]
            self.letters.update(dict.fromkeys(lost))
            self._ask(peer, methods.QueueDelete(queue=name), False, queue, binding)
            self.letters.update(dict.fromkeys(lost, ""))
        elif what == "exchange":
            self._ask(peer, methods.ExchangeDelete(exchange=name), False, exchange, binding)
        else:
            method = methods.QueueUnbind(queue=name, exchange=name, routing_key="#")
            self._ask(peer, method, False, binding)
        self._tearing = None
        self.torn_down += 1

    # ---- after a kill

    def check(self, peer: Peer) -> None:
        """All that is certain is so, and of the rest nothing is there by half; from now on that is certain too."""
        names = {name for _, name in self.known}
        for name in names:
            queue = _is_there(peer, methods.QueueDeclare(queue=name, passive=True))
            exchange = _is_there(peer, methods.ExchangeDeclare(exchange=name, passive=True))
            binding = exchange and _is_routed(peer, name)
            for what, found in (("queue", queue), ("exchange", exchange), ("binding", binding)):
                known = self.known.get((what, name), False)
                assert known is None or known is found, f"the {what} of {name}: {found}"
                self.known[what, name] = found
            assert queue or not binding, f"{name} is bound though it is gone"
            if self._tearing is not None and self._tearing[1] == name:
                what, _, bound = self._tearing
                whole = queue if what == "queue" else exchange if what == "exchange" else binding
                assert binding is (bound and whole), f"the {what} of {name} was deleted by half"
        self._tearing = None
        gone = [name for name in names if not any(self.known[what, name] for what in ("queue", "exchange", "binding"))]
        for name in sorted(gone, key=lambda name: int(name.split()[1]))[:-_GONE_KEPT]:
            for what in ("queue", "exchange", "binding"):
                del self.known[what, name]

    def check_letters(self, peer: Peer) -> None:
        """At the end, which takes all messages: each is where it must be, and none is anywhere else."""
        places: dict[bytes, set[str]] = {}
        for name in [GRAVES, *(name for (what, name), there in self.known.items() if what == "queue" and there)]:
            for body in peer.drain(name):
                if body != PROBE:
                    places.setdefault(body, set()).add(name)
        assert places.keys() <= self.letters.keys(), "invented"
        for body, place in self.letters.items():
            if place is not None:
                found = places.get(body, set())
                assert found == ({place} if place else set()), f"{body!r} should be in {place!r} and is in {found}"


def _is_there(peer: Peer, method: Method) -> bool:
    heard = peer.ask(method)
    if not isinstance(heard.method, methods.ChannelClose):
        return True
    assert heard.method.reply_code == 404, heard
    peer.send(methods.ChannelCloseOk(), methods.ChannelOpen())
    assert isinstance(peer.hear().method, methods.ChannelOpenOk)
    return False


def _is_routed(peer: Peer, exchange: str) -> bool:
    """Whether the exchange has a queue for a message, which does not stay there."""
    publish = methods.BasicPublish(exchange=exchange, routing_key="any", mandatory=True).frame(1)
    peer.send_raw(publish + content_frames(1, 60, _SOON, PROBE, 131_072))
    heard = peer.ask(methods.QueueDeclare(queue=GRAVES, passive=True))
    if isinstance(heard.method, methods.QueueDeclareOk):
        return True
    assert isinstance(heard.method, methods.BasicReturn), heard
    assert isinstance(peer.hear().method, methods.QueueDeclareOk)
    return False
