"""Hypothesis draws seeds and shapes; the time of an example says nothing here, so there is no deadline."""

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
    """No name but this machine's is looked up."""
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
    """CuPy, or what stands in for it."""
    if request.param == "stand-in":
        with strict.installed() as module:
            yield module
    else:
        try:
            yield module_of("cuda")
        except UserError as error:
            pytest.skip(str(error))


def is_standin(cupy):
    return cupy.ndarray is strict.ndarray


@pytest.fixture
def standin(cupy):
    """For tests of what only the stand-in can tell."""
    if not is_standin(cupy):
        pytest.skip("of the stand-in alone")
    return cupy


@pytest.fixture(scope="module")
def no_waiting(cupy):
    """Within `with no_waiting():` nothing may be brought to the host."""

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
