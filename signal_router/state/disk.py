"""What a disk refuses for reasons of its own: then nothing is wrong with the tables, and rebuilding them helps nobody.

RocksDB and its binding give errors as text only, which ends in the words of the operating system.
"""

from __future__ import annotations

import errno
import os

_NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NOT_OURS = tuple(os.strerror(code) for code in (errno.EROFS, errno.EACCES, errno.EPERM))


def refusal(error: Exception) -> str | None:
    """What an operator can do about a disk that is full or may not be written to; None for any other error."""
    text = str(error)
    if any(words in text for words in _NO_ROOM):
        return "free space on its disk (or raise the quota) and start the worker again; nothing is lost"
    if any(words in text for words in _NOT_OURS):
        return "--state-dir DIR, a directory this user may write to"
    return None
