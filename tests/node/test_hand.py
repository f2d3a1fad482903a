"""A thread that does one job after the other."""

import socket
import threading

from swisd.node.hand import Hand

WAIT_S = 10.0


def test_jobs_are_done_in_their_order_by_one_thread_that_begins_with_the_first():
    hand, done, threads = Hand("tester"), threading.Event(), list[str]()
    assert "tester" not in [thread.name for thread in threading.enumerate()]
    for number in range(50):
        hand.submit(lambda number=number: threads.append(f"{threading.current_thread().name} {number}"))  # type: ignore[misc]
    hand.submit(done.set)
    assert done.wait(WAIT_S)
    assert threads == [f"tester {number}" for number in range(50)]
    hand.end()


def test_after_the_end_what_waits_is_done_and_nothing_else():
    hand, begin, done, late = Hand("tester"), threading.Event(), threading.Event(), threading.Event()
    thread: list[threading.Thread] = []
    hand.submit(lambda: thread.append(threading.current_thread()))
    hand.submit(lambda: begin.wait(WAIT_S) and None)
    hand.submit(done.set)
    hand.end()
    hand.submit(late.set)
    begin.set()
    assert done.wait(WAIT_S)
    thread[0].join(WAIT_S)
    assert not thread[0].is_alive() and not late.is_set()


def test_jobs_of_many_threads_are_all_done_by_one():
    hand, names, done = Hand("tester"), set[str](), threading.Semaphore(0)

    def job() -> None:
        names.add(threading.current_thread().name)
        done.release()

    givers = [threading.Thread(target=lambda: [hand.submit(job) for _ in range(20)]) for _ in range(8)]
    for giver in givers:
        giver.start()
    assert all(done.acquire(timeout=WAIT_S) for _ in range(160))
    assert names == {"tester"}
    assert len([thread for thread in threading.enumerate() if thread.name == "tester"]) == 1
    for giver in givers:
        giver.join(WAIT_S)
    hand.end()


def test_what_a_job_held_is_free_once_it_is_done():
    import weakref

    class Held:
        pass

    hand, held, done = Hand("tester"), Held(), threading.Event()
    gone = weakref.ref(held)
    hand.submit(lambda held=held: None)  # type: ignore[misc]
    del held
    hand.submit(done.set)
    assert done.wait(WAIT_S)
    assert gone() is None
    hand.end()


class Waiting:
    """A hand with a job that waits at a socket, as long as it is told to."""

    def __init__(self, seconds: float = WAIT_S) -> None:
        self.hand, self.done, self.begun = Hand("tester", waits=True), threading.Event(), threading.Event()
        self.here, self.there = socket.socketpair()
        self.found: list[bool] = []
        self._seconds = seconds
        self.hand.submit(self.job)
        assert self.begun.wait(WAIT_S)

    def job(self) -> None:
        self.begun.set()
        self.found.append(self.hand.wait(self.here.fileno(), self._seconds))
        self.done.set()

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self.hand.end()
        self.here.close()
        self.there.close()


def test_a_job_waits_at_a_socket() -> None:
    with Waiting() as waiting:
        for number in (1, 2):
            waiting.there.send(b"x")
            assert waiting.done.wait(WAIT_S) and waiting.found == [True] * number
            waiting.here.recv(1)
            waiting.done.clear()
            waiting.hand.submit(waiting.job)
        waiting.there.close()  # that it is over can be read, too
        assert waiting.done.wait(WAIT_S) and waiting.found == [True] * 3


def test_it_waits_no_longer_once_there_is_another_job() -> None:
    with Waiting() as waiting:
        other = threading.Event()
        waiting.hand.submit(other.set)
        assert other.wait(WAIT_S) and waiting.found == [False]
        waiting.done.clear()
        waiting.hand.submit(waiting.job)  # an old ring of the bell does not count
        waiting.there.send(b"x")
        assert waiting.done.wait(WAIT_S) and waiting.found == [False, True]


def test_it_does_not_wait_where_a_job_waits_already() -> None:
    with Waiting() as waiting:
        waiting.there.send(b"x")
        assert waiting.done.wait(WAIT_S)
        hold, go = threading.Event(), threading.Event()
        waiting.hand.submit(lambda: hold.set() or (go.wait(WAIT_S) and None))
        assert hold.wait(WAIT_S)
        waiting.done.clear()
        waiting.hand.submit(waiting.job)
        waiting.hand.submit(lambda: None)
        go.set()
        assert waiting.done.wait(WAIT_S) and waiting.found == [True, False]


def test_it_waits_no_longer_than_it_may() -> None:
    with Waiting(0.01) as waiting:
        assert waiting.done.wait(WAIT_S) and waiting.found == [False]


def test_it_waits_no_longer_once_there_is_no_job_any_more() -> None:
    with Waiting() as waiting:
        waiting.hand.end()
        assert waiting.done.wait(WAIT_S) and waiting.found == [False]


def test_one_that_does_not_wait_says_so_at_once() -> None:
    hand, found, done = Hand("tester"), list[bool](), threading.Event()
    here, there = socket.socketpair()
    hand.submit(lambda: found.append(hand.wait(here.fileno(), WAIT_S)) or done.set())
    assert done.wait(WAIT_S) and found == [False]
    hand.end()
    here.close()
    there.close()
