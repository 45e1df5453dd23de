"""How numba compiles functions of this package."""

import functools

import numba

from nas.user_cache import user_cache


def _can_cache() -> bool:
    """Whether numba can keep what it compiles, in the user's cache folder."""
    folder = user_cache("numba")
    if folder and not numba.config.CACHE_DIR:
        numba.config.CACHE_DIR = str(folder)
    return bool(numba.config.CACHE_DIR)


# Nothing is allocated, so arrays need no reference counts: counting takes as long as the search of
# edit distances, more with several threads.
compiled = functools.partial(numba.njit, cache=_can_cache(), nogil=True, _nrt=False)
