"""Which errors of the operating system need a person, and which may be gone at the next try."""

import errno

_FOR_A_PERSON = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        *(number for name in ("EDQUOT",) if (number := getattr(errno, name, None)) is not None),
    }
)


def needs_a_person(error: OSError) -> bool:
    """Return whether trying again cannot help until somebody changes something: rights, space, a path."""
    return error.errno in _FOR_A_PERSON
