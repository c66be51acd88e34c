"""Where a sentence that is too long for the model is cut."""


def cut(counts: list[int], limit: int) -> list[int]:
    """Where the pieces of a sentence begin: as few pieces of at most `limit` tokens as possible, of even sizes.

    `counts` are the numbers of tokens of the words; a word of more than `limit` tokens is a piece of its own.
    """
    counts = [min(count, limit) for count in counts]
    fewest = len(_pack(counts, limit))
    sizes = range(max(-(-sum(counts) // fewest), *counts, 1), limit)
    return _pack(counts, next((size for size in sizes if len(_pack(counts, size)) == fewest), limit))


def _pack(counts: list[int], size: int) -> list[int]:
    starts, used = [0], 0
    for word, count in enumerate(counts):
        if used + count > size:
            starts.append(word)
            used = 0
        used += count
    return starts
