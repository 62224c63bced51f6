"""Draw the next batches while the device computes the present one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

# A batch of 8 crops takes about as long as a step on a large GPU, so several are drawn at a time.
_THREADS: Final = 4
_AHEAD: Final = 4


_Drawn = TypeVar("_Drawn", covariant=True)


class Sampler(Protocol[_Drawn]):
    """Whatever draws batch i as a function of i."""

    def batch(self, index: int) -> _Drawn:
        """The batch for iteration `index`."""
        ...


@contextmanager
def prefetched(sampler: Sampler[_Drawn], start: int) -> Iterator[Iterator[_Drawn]]:
    """Batches of `sampler` from iteration `start` on, drawn ahead by a few threads (numpy releases the GIL).

    Order and contents do not depend on timing: each batch is a function of its index.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="crops") as pool:
        waiting = deque(pool.submit(sampler.batch, start + i) for i in range(_AHEAD))

        def drain() -> Iterator[_Drawn]:
            index = start + _AHEAD
            while True:
                waiting.append(pool.submit(sampler.batch, index))
                index += 1
                yield waiting.popleft().result()

        try:
            yield drain()
        finally:
            for future in waiting:
                future.cancel()
