"""Who may change what a daemon serves: its own user and root, and nobody else.

Only artifacts and the cache are held to that. A source folder is whoever's the user says it is:
what is made of it is compared with it when it is prepared, and is a file of the daemon's own.

A folder's own entries are looked at, and the folder, but not the folders above: whoever can
rename one of those can put another artifact in this one's place, but only one that this user or
root has made. Rights that a mandatory access control grants are not looked at either.
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
    """On whose behalf files are judged: a user and its groups, by number."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return who runs this process."""
        return cls(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def of_folder(cls, folder: Path) -> "Owner":
        """Return whose `folder` is, to judge as that user's daemon would. Raises `OSError`."""
        facts = folder.stat()
        with suppress(KeyError):
            return cls(facts.st_uid, frozenset({pwd.getpwuid(facts.st_uid).pw_gid}))
        return cls(facts.st_uid, frozenset({facts.st_gid}))


def refuse_untrusted(
    path: Path, facts: os.stat_result | None = None, *, owner: Owner, shared: bool = False
) -> None:
    """Raise `UntrustedError` where another user than `owner` and root may change what is served.

    A link is judged by its own owner, and by what it leads to. `facts` are those of a file that
    is open already: it may not be the one at `path` for long. A folder that is meant to be
    `shared` may have the sticky bit: nobody can rename or remove what is another's there.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and (reason := _of_owner(link, owner)):
        raise UntrustedError(path, _told(path, f"is a symbolic link that {reason}", owner))
    facts = facts or path.stat()
    reason = _of_owner(facts, owner)
    if not reason and not (shared and facts.st_mode & stat.S_ISVTX):
        reason = _of_mode(path, facts, owner)
    if reason:
        raise UntrustedError(path, _told(path, reason, owner))


def refuse_untrusted_cache(cache: Path, *, owner: Owner | None = None) -> None:
    """Raise `UntrustedError` for a cache whose entries others may replace; one to be made is none.

    A tmpfs has the sticky bit, for one. Each entry is judged by itself in any case.
    """
    with suppress(OSError):  # what cannot be looked at is told where it is read or made
        refuse_untrusted(cache, owner=owner or Owner.of_this_process(), shared=True)


def _of_owner(facts: os.stat_result, owner: Owner) -> str:
    if facts.st_uid in {0, owner.uid}:
        return ""
    mode = stat.S_IMODE(facts.st_mode)
    return f"belongs to {_user(facts.st_uid)} (mode {mode:04o}), not to the user that this runs as"


def _of_mode(path: Path, facts: os.stat_result, owner: Owner) -> str:
    mode = stat.S_IMODE(facts.st_mode)
    said = f"belongs to {_user(facts.st_uid)} and has mode {mode:04o}, so that"
    if mode & stat.S_IWOTH:
        return f"{said} everybody may write to it"
    if mode & stat.S_IWGRP and (_has_acl(path) or not _is_private(facts.st_gid, owner)):
        return f"{said} {_group(facts.st_gid)} may write to it"
    return ""


def _is_private(gid: int, owner: Owner) -> bool:
    """Whether nobody but `owner` and root is in a group, as where each user has one of its own.

    Root's group is root's, whoever else the distribution puts there.
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
    """Whether the group's bits are a mask, under which an access list names users of its own."""
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError as error:
        return error.errno not in _NO_ACL


def _told(path: Path, reason: str, owner: Owner) -> str:
    folder = shlex.quote(str(path if path.is_dir() else path.parent))
    whose = "root" if owner.uid == 0 else f"root and {_user(owner.uid)}"
    return (
        f"{path} {reason}; only {whose} may be able to change what is served. If you trust what "
        f"it holds: `chown -hR {owner.uid} {folder} && chmod -R go-w {folder}`; else remove it, "
        "or name another folder (SIDECAR_CACHE_DIR for the cache)"
    )


def _user(uid: int) -> str:
    with suppress(KeyError):
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    return f"user {uid}"


def _group(gid: int) -> str:
    with suppress(KeyError):
        return f"group {grp.getgrgid(gid).gr_name} ({gid})"
    return f"group {gid}"
