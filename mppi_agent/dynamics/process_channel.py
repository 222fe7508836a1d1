"""Messages between two processes: the bytes of arrays in shared memory, the rest over a pipe.

    sender: arrays -> own area, pickled frame -> pipe;  receiver: frame and area -> the same objects

The areas are files without a name that both processes hold open. They vanish with the last of
them, however it ends, so there is nothing to clean up and nothing to leak.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from typing import IO, Any

import cloudpickle  # type: ignore[import-untyped]

__all__ = ["Channel", "shared_file"]

_SMALLEST_AREA = 1 << 16


class Channel:
    """One end of a conversation of requests and replies.

    A message overwrites the area that the one before it was in, so the other end must have
    answered before the next is sent.

    Args:
        incoming: Pipe to read from.
        outgoing: Pipe to write to.
        incoming_area: File descriptor of the area that the other end writes to.
        outgoing_area: File descriptor of the area that this end writes to.
    """

    def __init__(
        self, incoming: IO[bytes], outgoing: IO[bytes], incoming_area: int, outgoing_area: int
    ) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._read_area = _Area(incoming_area)
        self._write_area = _Area(outgoing_area)

    def send(self, message: Any) -> None:
        """Send any object that cloudpickle can write.

        Raises:
            OSError: If the other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        frame = cloudpickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes for view in views]
        self._write_area.make_room(sum(sizes))
        self._write_area.write(views)
        self._outgoing.write(pickle.dumps(sizes) + frame)
        self._outgoing.flush()

    def receive(self) -> Any:
        """Wait for a message and return it; its arrays are private copies.

        Raises:
            EOFError: If the other end is gone.
        """
        sizes = pickle.load(self._incoming)
        return pickle.load(self._incoming, buffers=self._read_area.read(sizes))

    def close(self) -> None:
        """Close both pipes and both areas."""
        for pipe in (self._incoming, self._outgoing):
            try:
                pipe.close()
            except OSError:  # what was buffered for an end that is gone
                continue
        for area in (self._read_area, self._write_area):
            area.close()


def shared_file() -> int:
    """Return the descriptor of an empty file without a name, kept in memory where possible."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mppi_agent")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Area:
    """Shared memory that grows: the writer lengthens the file, the reader maps what is there."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._map: mmap.mmap | None = None

    def make_room(self, size: int) -> None:
        if size > (0 if self._map is None else len(self._map)):
            os.ftruncate(self._file, max(_SMALLEST_AREA, 1 << (size - 1).bit_length()))
            self._remap()

    def write(self, views: list[memoryview]) -> None:
        start = 0
        for view in views:
            if view.nbytes:
                assert self._map is not None
                self._map[start : start + view.nbytes] = view
                start += view.nbytes

    def read(self, sizes: list[int]) -> list[bytearray]:
        if sum(sizes) > (0 if self._map is None else len(self._map)):
            self._remap()
        parts, start = [], 0
        for size in sizes:
            part = bytearray(size)
            if size:
                assert self._map is not None
                part[:] = memoryview(self._map)[start : start + size]
            parts.append(part)
            start += size
        return parts

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        os.close(self._file)

    def _remap(self) -> None:
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
