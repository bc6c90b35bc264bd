"""Ctrl-C at any moment of an optimizer's step leaves the old state or the new one."""

import _thread
import signal
import threading
import time

import numpy as np
import pytest

from numpyvit import SGD, AdamW, Muon, ViT, ViTConfig, Workers
from numpyvit.optim.base import serial_map
from numpyvit.optim.uninterrupted import uninterrupted
from numpyvit.testing import normal

MODEL = ViT(ViTConfig(width=48, depth=2, heads=2, mlp_width=96))


def state(params, optimizer):
    """Return the bytes of everything that a step changes."""
    arrays = {"weights": params.flat, **optimizer.state()}
    return {name: array.tobytes() for name, array in arrays.items()}


def interrupt_after(seconds):
    """Return a thread that sends Ctrl-C to the main thread, to be started."""

    def wait_and_interrupt():
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            time.sleep(0)
        _thread.interrupt_main()

    return threading.Thread(target=wait_and_interrupt)


@pytest.mark.parametrize("make", [SGD, AdamW, Muon])
@pytest.mark.parametrize("threads", [False, True])
def test_ctrl_c_leaves_the_old_state_or_the_new_one(make, threads):
    params = MODEL.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    grads = params.zeros_like()
    grads.flat[...] = normal(params.flat.shape, 1, np.float32)
    optimizer = make(params, average=0.9)
    rng = np.random.default_rng(0)
    interrupted = 0
    with Workers(MODEL, workers=2) as workers:
        run = workers.map if threads else serial_map
        optimizer.step(params, grads, 0.01, map=run)
        began = time.perf_counter()
        optimizer.step(params, grads, 0.01, map=run)
        duration = time.perf_counter() - began
        for _ in range(40):
            before = state(params, optimizer)
            other = params.copy()
            twin = make(other, average=0.9)
            twin.load_state(optimizer.state())
            twin.step(other, grads, 0.01)
            thread = interrupt_after(rng.uniform(0, 1.5 * duration))
            try:
                thread.start()
                optimizer.step(params, grads, 0.01, map=run)
                thread.join()
            except KeyboardInterrupt:
                interrupted += 1
            after = state(params, optimizer)
            thread.join()
            time.sleep(0.001)  # a thread that still wrote would be noticed
            assert after in (before, state(other, twin))
            assert state(params, optimizer) == after
    assert interrupted >= 20


def test_a_delayed_ctrl_c_is_raised_at_the_end_and_the_handler_is_back():
    handler = signal.getsignal(signal.SIGINT)
    done = []

    def update():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        update()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_that_is_no_function_stays(handler):
    previous = signal.signal(signal.SIGINT, handler)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)


def test_other_threads_may_take_steps():
    params = MODEL.init()
    optimizer = AdamW(params)
    errors = []

    def step():
        try:
            optimizer.step(params, params.copy(), 0.1)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert errors == []
    assert optimizer.t == 1


def test_when_one_call_fails_no_other_is_still_running():
    finished = []

    def run(item):
        if item == 0:
            raise ZeroDivisionError
        time.sleep(0.05)
        finished.append(item)

    with Workers(MODEL, workers=2) as workers:
        with pytest.raises(ZeroDivisionError):
            workers.map(run, [1, 0, 2, 3])
        seen = list(finished)
        time.sleep(0.1)
        assert finished == seen
        assert 1 in seen
