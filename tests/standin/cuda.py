"""The stand-in for cupy.cuda: devices, streams, graphs and memory."""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from . import capture
from .capture import Refused, not_while_capturing


class CUDARuntimeError(RuntimeError):
    """The error that CUDA's runtime raises."""


class Device:
    """A GPU; `used` is the number of the current one."""

    used, free = 0, 4 * 2**30

    def __init__(self, number: int | None = None) -> None:
        self.number = Device.used if number is None else number

    def use(self) -> None:
        Device.used = self.number

    def synchronize(self) -> None:
        not_while_capturing("synchronize", "it waits for the device")
        capture.reads += 1

    @property
    def id(self) -> int:
        return self.number

    @property
    def mem_info(self) -> tuple[int, int]:
        return Device.free, 8 * 2**30


class Graph:
    """A captured stream: the recorded work, done at each launch."""

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = work

    def launch(self, stream: Any = None) -> None:
        not_while_capturing("a launch", "the stand-in cannot capture it")
        for one in self.work:
            one()


class Stream:
    """A stream. All work is done at once, in order, or recorded during a capture."""

    streams: ClassVar[list["Stream"]] = []  # those whose `with` blocks have not ended

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: Any = None,
    ) -> None:
        self.non_blocking, self.ptr = non_blocking, id(self)

    def __enter__(self) -> "Stream":
        Stream.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert Stream.streams.pop() is self

    def synchronize(self) -> None:
        not_while_capturing("synchronize", "it waits for the device")
        capture.reads += 1

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.non_blocking or get_current_stream() is not self:
            raise Refused("a stream can be captured only if it is non-blocking and current")
        not_while_capturing("begin_capture", "there can be only one capture")
        capture.tape = []

    def end_capture(self) -> Graph:
        if capture.tape is None:
            raise CUDARuntimeError("nothing is being captured")
        graph, capture.tape = Graph(capture.tape), None
        return graph


DEFAULT = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    """Return the stream of the innermost `with` block, or the default stream."""
    return Stream.streams[-1] if Stream.streams else DEFAULT


class Memory:
    """Memory of the device; it fails to allocate more than there is."""

    def __init__(self, size: int) -> None:
        if size > Device.free:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        self.size = size


class MemoryPool:
    """A pool that passes requests on to its allocator. (Arrays get their memory from NumPy.)"""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self.allocator = allocator

    def malloc(self, size: int) -> Any:
        if self.allocator is None:
            raise Refused("the stand-in's pool needs an allocator")
        return self.allocator(size)

    def free_all_blocks(self, stream: Any = None) -> None:
        not_while_capturing("free_all_blocks", "it waits for the device")


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    """Do nothing, since arrays get their memory from NumPy."""
    yield


def cuda(gpus: int, error: str = "") -> Any:
    """Return the stand-in for `cupy.cuda` on a machine with this number of GPUs.

    error: the message of the driver, if it fails.
    """

    def count() -> int:
        if error:
            raise CUDARuntimeError(error)
        return gpus

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    return types.SimpleNamespace(
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        get_current_stream=get_current_stream,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        Memory=Memory,
        MemoryPointer=lambda memory, offset: (memory, offset),
    )
