"""When two names mean one model."""


def is_same(asked: str, served: str) -> bool:
    """Whether `asked` is a name of the model called `served`.

    A hub id is the same with and without its organisation.
    """
    if asked == served:
        return True
    owner, _, own = asked.rpartition("/")
    served_owner, _, served_own = served.rpartition("/")
    return own == served_own and not (owner and served_owner) and not is_path(asked)


def is_path(name: str) -> bool:
    """Whether `name` is written as a path and not as a hub id."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1
