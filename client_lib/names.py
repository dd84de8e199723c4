"""When two names mean one model."""


def is_same(asked: str, served: str) -> bool:
    """Whether `asked` is a name of the model called `served`.

    A hub id is the same with and without its organisation, and its revision.
    """
    if asked == served:
        return True
    if is_path(asked):
        return False
    (owner, own, revision), (other_owner, other, other_revision) = map(_parts, (asked, served))
    return own == other and _agree(owner, other_owner) and _agree(revision, other_revision)


def is_path(name: str) -> bool:
    """Whether `name` is written as a path and not as a hub id."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def _parts(name: str) -> tuple[str, str, str]:
    owner, _, rest = name.rpartition("/")
    own, _, revision = rest.partition("@")
    return owner, own, revision


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other
