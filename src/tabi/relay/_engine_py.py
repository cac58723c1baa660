"""The relay engine in pure Python: a `Relay` in a thread of its own, and how the other threads talk to it.

They hand over flows and orders by a queue and an eventfd, the bell; it answers with batches of ends and
another eventfd. So only the engine's thread touches a flow, and the control plane keeps nothing for one.
"""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from tabi.relay._arrival import Listener
from tabi.relay._congestion import AUTO, choose
from tabi.relay._flow import Flow, Side
from tabi.relay._lane_py import MOST_CALLS, Lane
from tabi.relay._pipes import PipePool, pipes_of_worker
from tabi.relay._pump import SPLICE_AFTER
from tabi.relay._relay import Relay
from tabi.relay._report import PAUSE, Report, quiet
from tabi.relay.bucket import QUANTUM, Bucket, Cell, burst_of
from tabi.relay.interface import Cause, Closer, End, FlowLimits, Live
from tabi.relay.lane import Call, Counter, Door, Permit
from tabi.relay.rows import Rows, SharedRows
from tabi.relay.tuning import Tuning

__all__ = ["PureEngine"]

# Seconds. So that a flow does not wait longer than this for the GIL beside a busy control plane: p99 of a
# round trip beside callbacks of 5 ms is 0.6 ms, and 5.3 ms with the default interval. It costs nothing
# measurable.
_SWITCH_INTERVAL: Final = 50e-6


class _Cut(NamedTuple):
    """The order to reset flows."""

    flows: list[int]
    cause: Cause


class _Limit(NamedTuple):
    """The order to have flows keep to other limits."""

    flows: list[int]
    limits: FlowLimits


class _Change(NamedTuple):
    """The order to let the flows of a number share this bucket, or go on with its new rate."""

    number: int
    bucket: Bucket | None


class _Task(NamedTuple):
    """The order to call something of the lane; `done` is told when it has been."""

    call: Callable[[], object]
    done: threading.Event | None = None


_Order: TypeAlias = Flow | _Cut | _Limit | _Change | _Task


class PureEngine:
    """A `LaneEngine` (see `tabi.relay.interface` and `tabi.relay.lane`) that needs nothing but Python.

    Args:
        workers: processes of this user that run an engine.
        clock: seconds, monotonic.
        splice_after: large reads in a row before a stream is spliced; 0 splices always.
        pipes: how many pipes it may hold; None is this worker's fair share.
        spin: look again for a moment before going to sleep, where that has paid.
        congestion: control of bulk streams on near legs (`tabi.relay._congestion`); empty is the system's.
    """

    name: Final = "pure"
    make_rows: Final = Rows

    def __init__(
        self,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        splice_after: int = SPLICE_AFTER,
        pipes: int | None = None,
        spin: bool = True,
        congestion: str = AUTO,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # for what follows, up to the thread
        self._adopted = 0  # flows; also the number of the last one
        self._over = 0  # flows whose ends are published
        self._ends: list[End] = []
        self._calls: list[Call] = []
        self._orders: deque[_Order] = deque()
        self._buckets: dict[int, Bucket] = {}
        self._rung = False  # the bell was rung for orders that wait
        self._stopping = False
        self._stopped = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._old_interval = 0.0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._report = Report()
        pool = PipePool(pipes_of_worker(workers) if pipes is None else pipes)
        steady = choose(congestion)
        self._relay = Relay(self._bell, clock=clock, pipes=pool, splice_after=splice_after, spin=spin, steady=steady)
        self._lane: Lane | None = None

    @property
    def failure(self) -> Exception | None:
        """The bug that has ended the thread, if one has (see `Engine.failure`)."""
        return self._failure

    def start(self) -> None:
        """Start the thread, and set the interpreter's switch interval for it until `stop`.

        Raises:
            RuntimeError: it has been started or stopped before.
        """
        if self._thread is not None or self._stopping:
            raise RuntimeError("an engine is started once")
        self._old_interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._thread = threading.Thread(target=self._serve, name="tabi-engine", daemon=True)
        self._thread.start()

    def adopt(
        self,
        inbound: int,
        outbound: int,
        early: bytes,
        pending: bytes,
        limits: FlowLimits,
        record: bytes,
        *,
        error: int = 0,
        ring: bool = True,
        tuning: Tuning | None = None,
    ) -> int:
        """Take over two established stream sockets and return the number of the flow (see `Engine.adopt`)."""
        client, target = Side(inbound, pending), Side(outbound, early)
        client.err = error
        with self._lock:
            self._adopted += 1
            flow = Flow(self._adopted, client, target, limits, record, self._clock())
            flow.tuning = tuning
            if not self._stopped:
                self._order(flow, ring=ring)
                return flow.number
        self._turn_away(flow)
        return flow.number

    def ring(self) -> None:
        """Wake the engine for what was adopted without ringing."""
        with self._lock:
            if self._orders and not self._stopped:
                self._ring()

    def fileno(self) -> int:
        """Return the eventfd that is readable while ends wait."""
        return self._report.fd

    def ends(self) -> list[End]:
        """Take all ends that wait, the oldest first."""
        # Before they are taken: an end that comes in between rings once too often, not never.
        self._report.quiet()
        with self._lock:
            ends, self._ends = self._ends, []
        return ends

    def tell_together(self, is_on: bool) -> None:
        """Tell of ends together from now on, or of each at once."""
        self._report.pause = PAUSE if is_on else 0.0

    # the express lane

    def open_lane(self, rows: SharedRows, *, numbers: int, patience: float) -> None:
        """Open the lane; once, after `start`."""
        lane = self._lane = Lane(
            self._relay, rows, numbers=numbers, patience=patience, clock=self._clock, take_flow=self._take_flow
        )
        self._tell(partial(self._relay.share_with, lane))

    def accept_from(self, listener: int) -> None:
        """Accept from this listening socket, which stays the caller's."""
        self._tell(partial(self._the_lane.accept_from, Listener(listener)))

    def stop_accepting(self, listener: int) -> None:
        """Leave a listener alone; done when it returns."""
        self._have_done(partial(self._the_lane.stop_accepting, listener))

    def teach_door(self, door: Door) -> None:
        """Serve a client, from the next order on that rings."""
        self._tell(partial(self._the_lane.teach_door, door), ring=False)

    def teach_pass(self, door: int, message: bytes, user: bytes, until: float, failures: Counter) -> None:
        """Take this login at a door until then, or until there are more failures."""
        self._tell(partial(self._the_lane.teach_pass, door, message, user, until, failures))

    def answer(self, arrival: int, permit: Permit | None) -> None:
        """Answer an `Ask`."""
        self._tell(partial(self._the_lane.answer, arrival, permit))

    def calls(self) -> list[Call]:
        """Take all calls that wait, the oldest first."""
        with self._lock:
            calls, self._calls = self._calls, []
        if len(calls) >= MOST_CALLS:
            self._tell(self._the_lane.resume)
        return calls

    def call_in(self) -> None:
        """Hand over all arrivals; done when it returns."""
        self._have_done(self._the_lane.call_in)

    def forget(self) -> None:
        """Forget all that was taught, and hand over all arrivals; done when it returns."""
        self._have_done(self._the_lane.forget)

    @property
    def _the_lane(self) -> Lane:
        if self._lane is None:
            raise RuntimeError("the lane is not open")
        return self._lane

    def _take_flow(self) -> int:
        with self._lock:
            self._adopted += 1
            return self._adopted

    def _tell(self, call: Callable[[], object], done: threading.Event | None = None, *, ring: bool = True) -> bool:
        with self._lock:
            if not self._stopped:
                self._order(_Task(call, done), ring=ring)
            return not self._stopped

    def _have_done(self, call: Callable[[], object]) -> None:
        """Have the thread do something, and wait for it."""
        done = threading.Event()
        if self._tell(call, done):
            done.wait()

    # flows

    def snapshot(self) -> list[Live]:
        """List the flows that are not over, without stopping the engine."""
        with self._lock:
            waiting = [order for order in self._orders if isinstance(order, Flow)]
        # After those that wait: one that is taken up in between is in both, and none is in neither.
        return list({live.flow: live for live in (*(flow.live() for flow in waiting), *self._relay.live())}.values())

    def kill(self, flows: Iterable[int], cause: Cause) -> None:
        """Reset both sides of these flows."""
        numbers = list(flows)
        with self._lock:
            if not self._stopped:
                self._order(_Cut(numbers, cause))

    def limit(self, flows: Iterable[int], limits: FlowLimits) -> None:
        """Set the limits of these flows anew."""
        numbers = list(flows)
        with self._lock:
            if not self._stopped:
                self._order(_Limit(numbers, limits))

    def set_bucket(self, number: int, rate: int | None, cell: Cell | None = None) -> None:
        """Set how many bytes a second may be taken from a bucket; None is no limit."""
        with self._lock:
            if rate is None:
                bucket = self._buckets.pop(number, None)
                if bucket is None:
                    return
                bucket.set_rate(None, 0, self._clock())
            elif (known := self._buckets.get(number)) is not None:
                bucket = known
                bucket.set_rate(rate, burst_of(rate), self._clock())
            else:
                bucket = self._buckets[number] = Bucket(rate, burst_of(rate), quantum=QUANTUM, cell=cell)
            if not self._stopped:
                self._order(_Change(number, None if rate is None else bucket))

    def spend(self, buckets: Iterable[int], count: int) -> bool:
        """Take tokens for bytes that are moved elsewhere; False if one of the buckets has too few."""
        now = self._clock()
        spent: list[Bucket] = []
        for number in buckets:
            bucket = self._buckets.get(number)
            if bucket is None:
                continue
            if not bucket.spend(count, now):
                for other in spent:
                    other.give_back(count)
                return False
            spent.append(bucket)
        return True

    def __len__(self) -> int:
        """Count the flows that are not over, with those not yet taken up."""
        return self._adopted - self._over

    def step(self) -> None:
        """Do in this thread what is to be done now; for tests that move the clock, in place of `start`."""
        os.eventfd_write(self._bell, 1)  # do not wait
        self._turn()

    def stop(self) -> None:
        """Reset what is left, end the thread, close all but `fileno`, restore the switch interval."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            os.eventfd_write(self._bell, 1)
        if self._thread is None:
            self._shut_down()
        else:
            self._thread.join()
            sys.setswitchinterval(self._old_interval)
        os.close(self._bell)

    def close(self) -> None:
        """Close `fileno`."""
        self._report.close()

    def _order(self, order: _Order, *, ring: bool = True) -> None:
        """Queue something for the engine's thread, with the lock held."""
        self._orders.append(order)
        if ring:
            self._ring()

    def _ring(self) -> None:
        """Wake the thread, with the lock held. One ring does for all that follow until it looks."""
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def _turn_away(self, flow: Flow) -> None:
        """End a flow that came too late."""
        for side in (flow.inbound, flow.outbound):
            side.open()
            side.close(reset=True)
        cause = Cause.SHUTDOWN if self._failure is None else Cause.BUG
        self._publish([End(flow.number, flow.record, Closer.TABI, cause, 0, 0, 0, flow.started, self._clock())], [])

    def _publish(self, ends: list[End], calls: list[Call]) -> None:
        with self._lock:
            self._ends += ends
            self._over += len(ends)
            self._calls += calls
        if calls or self._stopped:
            self._report.tell()
        else:
            self._report.note_ends()

    def _serve(self) -> None:
        """Run the engine's thread."""
        # splice() into a reset socket raises SIGPIPE and knows no MSG_NOSIGNAL. CPython ignores the signal,
        # but a program around us may have restored it. It is sent to the thread that caused it, so block it
        # here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        try:
            while not self._stopping:
                self._turn()
            self._shut_down()
        except Exception as error:  # noqa: BLE001  the thread's supervisor: no tunnel may wait for who is not there
            self._give_up(error)

    def _turn(self) -> None:
        if self._relay.turn(self._report.wait()):
            self._take_orders()
        self._report_on()
        self._report.pay()

    def _report_on(self) -> None:
        """Publish what the turn has brought."""
        ends = self._relay.take_ends()
        lane = self._lane
        calls = [] if lane is None else lane.take_calls()
        if ends or calls:
            self._publish(ends, calls)
            if lane is not None and len(self._calls) >= MOST_CALLS:
                lane.pause()

    def _take_orders(self) -> None:
        quiet(self._bell)
        self._rung = False  # before the queue is emptied: whoever comes from here on rings again
        while self._orders:
            try:
                self._carry_out(self._orders[0])
            finally:
                with self._lock:  # only now does a flow leave the queue: `snapshot` finds it here or in the relay
                    self._orders.popleft()

    def _carry_out(self, order: _Order) -> None:
        if isinstance(order, Flow):
            self._relay.take_up(order)
        elif isinstance(order, _Change):
            self._relay.set_bucket(order.number, order.bucket)
        elif isinstance(order, _Task):
            try:
                order.call()
                if order.done is not None:
                    self._report_on()
            finally:  # nobody shall wait for a thread that has died of a bug
                if order.done is not None:
                    order.done.set()
        elif isinstance(order, _Limit):
            for number in order.flows:
                self._relay.limit(number, order.limits)
        else:
            for number in order.flows:
                self._relay.cut(number, order.cause)

    def _shut_down(self) -> None:
        with self._lock:
            self._stopped = True
        self._take_orders()
        if self._lane is not None:
            self._lane.close()
        self._relay.close(Cause.SHUTDOWN)
        self._report_on()
        self._report.pay(at_once=True)

    def _give_up(self, error: Exception) -> None:
        """End every flow after a bug, in the plainest way: what the bug was in may be called again by any other."""
        with self._lock:
            self._stopped = True
            self._failure = error
            late = list(self._orders)
            self._orders.clear()
        self._report.tell()  # first, should this fail as well
        for order in late:
            if isinstance(order, _Task) and order.done is not None:
                order.done.set()
        if self._lane is not None:
            self._lane.abandon()
        self._relay.abandon(Cause.BUG)
        self._report_on()
        for order in late:
            if isinstance(order, Flow):
                self._turn_away(order)
