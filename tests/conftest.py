"""Fixtures that all tests share, and the settings of Hypothesis.

An example has no deadline, because its first run may compile a kernel or fill a cache.
"""

import socket
from contextlib import contextmanager

import pytest
from hypothesis import settings
from standin import strict

from numpyvit import UserError
from numpyvit.backend.device import module_of

settings.register_profile("numpyvit", deadline=None, max_examples=25)
settings.load_profile("numpyvit")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse to look up the address of any other machine."""
    look_up = socket.getaddrinfo

    def local(host, *args, **options):
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "there is no network in tests")
        return look_up(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", local)
        yield


@pytest.fixture(scope="module", params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """Return CuPy on a GPU, or the stand-in for it on a machine without one."""
    if request.param == "stand-in":
        with strict.installed() as module:
            yield module
    else:
        try:
            yield module_of("cuda")
        except UserError as error:
            pytest.skip(str(error))


def is_standin(cupy):
    """Return whether the fixture `cupy` is the stand-in."""
    return cupy.ndarray is strict.ndarray


@pytest.fixture
def standin(cupy):
    """Return the stand-in, for tests of properties that only it can show."""
    if not is_standin(cupy):
        pytest.skip("this is a test of the stand-in")
    return cupy


@pytest.fixture(scope="module")
def no_waiting(cupy):
    """Return a context manager, within which nothing may be copied to the host."""

    @contextmanager
    def context():
        if is_standin(cupy):
            before = strict.reads
            yield
            assert strict.reads == before
        else:
            import cupyx

            with cupyx.allow_synchronize(False):
                yield

    return context
