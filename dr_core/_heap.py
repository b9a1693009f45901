"""A bounded heap of (score, key), worst first, for compiled code. Equal scores: the smaller key is the better one."""

from numba import njit


@njit(cache=True, nogil=True, inline="always")
def is_worse(score, key, other_score, other_key):  # type: ignore[no-untyped-def]
    """Whether the first of two (score, key) comes later: lower score, or the same with the larger key."""
    return score < other_score or (score == other_score and key > other_key)


@njit(cache=True, nogil=True)
def sink(scores, keys, size, score, key):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the heap's worst and restore the order."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and is_worse(scores[child + 1], keys[child + 1], scores[child], keys[child]):
            child += 1
        if not is_worse(scores[child], keys[child], score, key):
            break
        scores[place], keys[place] = scores[child], keys[child]
        place = child
    scores[place], keys[place] = score, key


@njit(cache=True, nogil=True)
def rise(scores, keys, size, score, key):  # type: ignore[no-untyped-def]
    """Add an entry to a heap of ``size``."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if not is_worse(score, key, scores[parent], keys[parent]):
            break
        scores[place], keys[place] = scores[parent], keys[parent]
        place = parent
    scores[place], keys[place] = score, key


@njit(cache=True, nogil=True)
def unwind(scores, keys, size):  # type: ignore[no-untyped-def]
    """Turn a heap into a list, best first."""
    while size > 1:
        size -= 1
        score, key = scores[size], keys[size]
        scores[size], keys[size] = scores[0], keys[0]
        sink(scores, keys, size, score, key)
