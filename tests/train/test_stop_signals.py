import os
import signal
import sys
import threading

import pytest

from numpyvit.train.stop_signals import stop_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
KINDS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


def send(number):
    os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number, _ in KINDS]


@pytest.mark.parametrize(("number", "exception"), KINDS)
def test_the_second_signal_raises_and_the_others_do_nothing(number, exception):
    before = handlers()
    with stop_signals() as stopped:
        assert stopped == []
        send(number)
        assert stopped == [number]
        with pytest.raises(exception):
            send(number)
        send(number)
        send(number)
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ignored_signals_and_a_handler_of_sigterm_are_left_alone(number):
    seen = []
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals() as stopped:
            send(number)
            assert stopped == []
        if number == signal.SIGTERM:
            signal.signal(number, lambda *args: seen.append(number))
            with stop_signals() as stopped:
                send(number)
                assert stopped == []
            assert seen == [number]
    finally:
        signal.signal(number, before)


def test_other_threads_handle_no_signals():
    found = []

    def run():
        with stop_signals() as stopped:
            found.append(stopped)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[]]
