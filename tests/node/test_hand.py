"""A thread that does one job after the other."""

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
