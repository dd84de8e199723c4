"""Whether two names refer to the same model."""


def is_same(requested: str, served: str) -> bool:
    """Whether `requested` is a name of the model called `served`.

    Hub ids match with or without their organisation, and with or without their revision.
    """
    if requested == served:
        return True
    if is_path(requested):
        return False
    (owner, own, revision), (other_owner, other, other_revision) = map(_parts, (requested, served))
    return own == other and _agree(owner, other_owner) and _agree(revision, other_revision)


def is_path(name: str) -> bool:
    """Whether `name` is written as a path rather than as a hub id."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def _parts(name: str) -> tuple[str, str, str]:
    owner, _, rest = name.rpartition("/")
    own, _, revision = rest.partition("@")
    return owner, own, revision


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other
