"""The socket's file, the folders that a daemon writes to, and whether this user may connect."""

import grp
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from client_lib.address import LONGEST_PATH
from sidecar.config import Config
from sidecar.models.errors import UntrustedError
from sidecar.models.trust import Owner, refuse_untrusted_cache
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

_ROOMY = 2.0


@dataclass(frozen=True, slots=True)
class User:
    """The user who runs the check, with all of its groups, by number."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """What exists at the socket's path; `kind` is "nothing", "socket", "other" or "hidden".

    Hidden: this user may not enter a parent folder. `group` is the file's, by name.
    """

    path: Path
    kind: str
    mode: int = 0
    group: str = ""
    may_connect: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, or where it would be created; whether this user can write to it; its free bytes.

    `refusal` says why its owner's daemon would serve nothing from it, or use nothing in it.
    """

    path: Path
    exists: bool
    writable: bool
    free: int
    refusal: str = ""


def read_user() -> User:
    """Return the user that runs this process."""
    return User(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def read_place(path: Path) -> Place:
    """Return what exists at `path`, without connecting to it."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Place(path, "nothing")
    except PermissionError:
        return Place(path, "hidden")
    kind = "socket" if stat.S_ISSOCK(status.st_mode) else "other"
    may = os.access(path, os.W_OK, effective_ids=True)
    return Place(path, kind, stat.S_IMODE(status.st_mode), _group_name(status.st_gid), may)


def read_folder(path: Path) -> Folder:
    """Return the facts about a folder; if it is missing, its nearest parent is examined."""
    nearest = next(each for each in (path, *path.absolute().parents) if _is_folder(each))
    writable = os.access(nearest, os.W_OK | os.X_OK, effective_ids=True)
    return Folder(path, nearest == path, writable, shutil.disk_usage(nearest).free)


def read_cache(path: Path) -> Folder:
    """Return the facts about the cache, judged as for its owner, since root may be asking."""
    folder, refusal = read_folder(path), ""
    if folder.exists:
        try:
            refuse_untrusted_cache(path, owner=Owner.of_folder(path))
        except UntrustedError as error:
            refusal = str(error)
    return replace(folder, refusal=refusal)


def closed_to_others(path: Path) -> Path | None:
    """Return the first path closed to other users: a parent folder, `path`, or one inside it."""
    for folder in reversed(path.absolute().parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    inside = (each for each in (path, *path.rglob("*")) if not each.stat().st_mode & stat.S_IROTH)
    return next(inside, None)


def check_open(check: str, closed: Path | None) -> Iterator[Finding]:
    """Whether a service, which has its own user, can read a path; `closed` is what it cannot."""
    if closed is not None:
        advice = "run `chmod -R a+rX` on it, or move it: units can never read /root or /home"
        yield warning(check, f"the service's user cannot read {closed}", advice)


def check_place(place: Place, user: User, system: Place | None = None) -> Iterator[Finding]:
    """Whether this user may connect to what is at the socket's path.

    `system` is the socket of the host's own daemon, which a user's default may hide.
    """
    path = place.path
    if len(os.fsencode(path)) > LONGEST_PATH:
        found = f"{path} is longer than {LONGEST_PATH} bytes, the limit for a Unix socket's path"
        yield error("socket", found, "set SIDECAR_SOCKET to a shorter path")
    elif place.kind == "nothing" and system and system.kind == "socket":
        found = f"nothing at {path}, but a socket at {system.path}"
        advice = (
            f"set SIDECAR_SOCKET={system.path} for clients too: the default uses XDG_RUNTIME_DIR"
        )
        yield warning("socket", found, advice)
    elif place.kind == "nothing":
        advice = "start one with `systemctl start sidecar.socket` or `sidecar serve`"
        yield note("socket", f"nothing at {path}: no daemon has listened there", advice)
    elif place.kind == "other":
        yield error("socket", f"{path} is not a socket", "move it away, or choose another path")
    elif place.kind == "hidden":
        found = f"user {user.uid} may not enter a parent folder of {path}"
        yield error("socket", found, "`namei -l` shows which; it needs mode 0755")
    elif not place.may_connect:
        found = f"user {user.uid} may not connect: {_described(place)}"
        advice = f"`usermod -aG {place.group} USER`, then log in again"
        yield error("socket", found, advice)
    elif place.mode & stat.S_IWOTH:
        yield note(
            "socket",
            f"everybody may connect: {_described(place)}",
            "mode 0660 limits it to a group",
        )
    else:
        yield ok("socket", f"user {user.uid} may connect: {_described(place)}")


def check_socket_folder(folder: Folder, place: Place) -> Iterator[Finding]:
    """Whether a daemon of this user could create its socket there."""
    if place.kind == "nothing" and not folder.writable:
        found = f"this user cannot create a socket in {folder.path}"
        yield warning(
            "socket", found, "let systemd's sidecar.socket create it, or choose another path"
        )


def check_allowed(config: Config, user: User) -> Iterator[Finding]:
    """Whether the daemon's allow-lists admit this user."""
    if not config.allow_users and not config.allow_groups:
        yield ok("allow-lists", "none: anyone who can open the socket may use the models")
        return
    found = f"users {_listed(config.allow_users)} and groups {_listed(config.allow_groups)}"
    if user.uid in config.allow_users or user.gids & config.allow_groups:
        yield ok("allow-lists", f"{found}, which admit user {user.uid}")
    else:
        advice = (
            "extend SIDECAR_ALLOW_USERS or SIDECAR_ALLOW_GROUPS; if both are empty, all may connect"
        )
        yield warning("allow-lists", f"{found}, which do not admit user {user.uid}", advice)


def check_cache(folder: Folder, missing_bytes: int) -> Iterator[Finding]:
    """Whether the cache can take the models still to be prepared, of `missing_bytes`."""
    found = f"{folder.path}, {folder.free / 1e9:,.1f} GB free"
    if folder.refusal:
        advice = (
            "until this is fixed, a daemon exits with 78 if it needs the cache, or runs without it"
        )
        yield error("cache", folder.refusal, advice)
    if not missing_bytes:
        yield ok("cache", f"{found}; nothing to prepare")
    elif not folder.writable:
        advice = "set SIDECAR_CACHE_DIR, or run `sidecar prepare` and configure its artifact"
        yield error("cache", f"this user cannot write to {folder.path}", advice)
    elif folder.free < _ROOMY * missing_bytes:
        yield error(
            "cache", f"{found}; too little to prepare", "free twice the size of the FP32 weights"
        )
    else:
        yield ok("cache", f"{found}{'' if folder.exists else '; will be created'}")


def _described(place: Place) -> str:
    return f"{place.path} has mode {place.mode:04o}, group {place.group}"


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False
