"""Who may change what a daemon serves: its own user and root, and nobody else.

Only artifacts and the cache are checked. A source folder may be owned by anyone the user trusts:
what is prepared from it is compared with it, and becomes a file of the daemon's own.

A folder and its entries are checked, but not its parents: whoever can rename one of those can
substitute another artifact, but only one that this user or root has created. Rights granted by
mandatory access control are not checked either.
"""

import errno
import grp
import os
import pwd
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.models.errors import UntrustedError

_ACL = "system.posix_acl_access"
_NO_ACL = frozenset({errno.ENODATA, errno.ENOTSUP, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and groups, by number, on whose behalf files are judged."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return the user and groups of this process."""
        return cls(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def of_folder(cls, folder: Path) -> "Owner":
        """Return the owner of `folder`, to judge as that user's daemon would. Raises `OSError`."""
        facts = folder.stat()
        with suppress(KeyError):
            return cls(facts.st_uid, frozenset({pwd.getpwuid(facts.st_uid).pw_gid}))
        return cls(facts.st_uid, frozenset({facts.st_gid}))


def refuse_untrusted(
    path: Path, facts: os.stat_result | None = None, *, owner: Owner, shared: bool = False
) -> None:
    """Raise `UntrustedError` if a user other than `owner` and root may change what is served.

    A link is judged by its own owner and by its target. `facts` is the stat result of a file that
    is already open: `path` may soon be another. A folder that is meant to be `shared` may have the
    sticky bit: no one can rename or remove another user's entries there.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and (reason := _of_owner(link, owner)):
        raise UntrustedError(path, _message(path, f"is a symbolic link that {reason}", owner))
    facts = facts or path.stat()
    reason = _of_owner(facts, owner)
    if not reason and not (shared and facts.st_mode & stat.S_ISVTX):
        reason = _of_mode(path, facts, owner)
    if reason:
        raise UntrustedError(path, _message(path, reason, owner))


def refuse_untrusted_cache(cache: Path, *, owner: Owner | None = None) -> None:
    """Raise `UntrustedError` for a cache whose entries others may replace.

    One that does not exist yet passes, and so does one with the sticky bit, such as a tmpfs. Each
    entry is judged separately in any case.
    """
    with suppress(OSError):  # if inaccessible, reading or creating it reports that
        refuse_untrusted(cache, owner=owner or Owner.of_this_process(), shared=True)


def _of_owner(facts: os.stat_result, owner: Owner) -> str:
    if facts.st_uid in {0, owner.uid}:
        return ""
    mode = stat.S_IMODE(facts.st_mode)
    return f"belongs to {_user(facts.st_uid)} (mode {mode:04o}), not to the user running this"


def _of_mode(path: Path, facts: os.stat_result, owner: Owner) -> str:
    mode = stat.S_IMODE(facts.st_mode)
    start = f"belongs to {_user(facts.st_uid)} and has mode {mode:04o}, so that"
    if mode & stat.S_IWOTH:
        return f"{start} everybody may write to it"
    if mode & stat.S_IWGRP and (_has_acl(path) or not _is_private(facts.st_gid, owner)):
        return f"{start} {_group(facts.st_gid)} may write to it"
    return ""


def _is_private(gid: int, owner: Owner) -> bool:
    """Whether a group has no members but `owner` and root, as a user's private group does.

    Root's group counts as root's, whoever else the distribution puts there.
    """
    if gid not in owner.gids:
        return False
    ours = {0, owner.uid}
    others = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid]
    return gid == 0 or (ours.issuperset(others) and ours.issuperset(_members(gid)))


def _members(gid: int) -> list[int]:
    with suppress(KeyError):
        return [_uid(name) for name in grp.getgrgid(gid).gr_mem]
    return []


def _uid(name: str) -> int:
    with suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return -1


def _has_acl(path: Path) -> bool:
    """Whether the group's bits are the mask of an access list, which may name other users."""
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError as error:
        return error.errno not in _NO_ACL


def _message(path: Path, reason: str, owner: Owner) -> str:
    folder = shlex.quote(str(path if path.is_dir() else path.parent))
    allowed = "root" if owner.uid == 0 else f"root and {_user(owner.uid)}"
    return (
        f"{path} {reason}; only {allowed} may change what is served. If you trust its contents, "
        f"run `chown -hR {owner.uid} {folder} && chmod -R go-w {folder}`; otherwise remove it, "
        "or choose another folder (SIDECAR_CACHE_DIR for the cache)"
    )


def _user(uid: int) -> str:
    with suppress(KeyError):
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    return f"user {uid}"


def _group(gid: int) -> str:
    with suppress(KeyError):
        return f"group {grp.getgrgid(gid).gr_name} ({gid})"
    return f"group {gid}"
