"""The two modes a channel can be put into: confirms, and transactions; a channel has one of them at most.

A transaction keeps publishes, routed when they were made, and settled deliveries until commit; rollback drops the first
and gives the second back to the channel. Atomic because a core call is: nothing else runs during a commit.
"""

from __future__ import annotations

from rabbitish.core.exchange import Target
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.session.carried import stream_of
from rabbitish.session.channel import Channel, handles
from rabbitish.session.confirms import Confirms
from rabbitish.session.content import WireMessage
from rabbitish.session.publish import hand_over
from rabbitish.session.unacked import Run
from rabbitish.wire import methods


class Transaction:
    """What a transactional channel has done since its last commit or rollback."""

    __slots__ = ("_settlements", "publishes", "safe_at")

    def __init__(self) -> None:
        # each with whether it is mandatory, and its number if those are counted
        self.publishes: list[tuple[bool, WireMessage, list[Target], int]] = []
        self.safe_at = 0  # of those that the journal had already
        # what was acknowledged (None) or rejected (whether to requeue), in the order the peer said so
        self._settlements: list[tuple[bool | None, list[Run]]] = []

    def ack(self, taken: list[Run]) -> None:
        """Acknowledge at commit."""
        self._settlements.append((None, taken))

    def reject(self, taken: list[Run], *, requeue: bool) -> None:
        """Reject at commit."""
        self._settlements.append((requeue, taken))

    def settled(self) -> list[Run]:
        """Everything acknowledged or rejected so far."""
        return [run for _, taken in self._settlements for run in taken]

    def commit(self, channel: Channel) -> None:
        """Make it so. ChannelError 406: a queue refused a publish; the rest is done all the same (RabbitMQ too)."""
        publishes, settlements = self.publishes, self._settlements
        self.publishes, self._settlements = [], []
        complete = True
        for mandatory, message, targets, number in publishes:
            complete = hand_over(channel, message, targets, mandatory=mandatory, number=number) and complete
        if channel.stream is not None:
            channel.stream.tell()
        for requeue, taken in settlements:
            if requeue is None:
                channel.ack_at_once(taken)
            else:
                channel.reject_at_once(taken, requeue=requeue)
        if not complete:
            raise ChannelError(ReplyCode.PRECONDITION_FAILED, "partial tx completion")

    def rollback(self, channel: Channel) -> None:
        """Forget it."""
        channel.unacked.put_back(self.settled())
        self.publishes, self._settlements = [], []


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")
    return channel.transaction


@handles(methods.TxSelect)
def tx_select(channel: Channel, method: methods.TxSelect) -> None:
    """tx.select."""
    if channel.confirms is not None:
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, "cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
        channel.stream = stream_of(channel)
        channel.plain = False
    channel.send(methods.TxSelectOk())


@handles(methods.TxCommit)
def tx_commit(channel: Channel, method: methods.TxCommit) -> None:
    """tx.commit."""
    transaction = _transaction(channel)
    transaction.commit(channel)
    channel.session.hold_until(transaction.safe_at)
    channel.send(methods.TxCommitOk())


@handles(methods.TxRollback)
def tx_rollback(channel: Channel, method: methods.TxRollback) -> None:
    """tx.rollback."""
    _transaction(channel).rollback(channel)
    channel.send(methods.TxRollbackOk())


@handles(methods.ConfirmSelect)
def confirm_select(channel: Channel, method: methods.ConfirmSelect) -> None:
    """confirm.select."""
    if channel.transaction is not None:
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, "cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.confirms = Confirms(channel.number)
        channel.stream = stream_of(channel)
    channel.reply(method.nowait, methods.ConfirmSelectOk())
