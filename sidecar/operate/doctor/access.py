"""The socket's file, the folders that a daemon writes, and whether this user may connect."""

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
    """Who looks: a user and all of its groups, by number."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """What lies where the socket should; `kind` is "nothing", "socket", "other" or "hidden".

    Hidden: this user may not enter a folder above. `group` is the file's, by name.
    """

    path: Path
    kind: str
    mode: int = 0
    group: str = ""
    may_connect: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, or where it would be made; `writable` by this user, with so many bytes free.

    `refusal` says why its owner's daemon would serve nothing from it, or use nothing in it.
    """

    path: Path
    exists: bool
    writable: bool
    free: int
    refusal: str = ""


def read_user() -> User:
    """Return who runs this process."""
    return User(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def read_place(path: Path) -> Place:
    """Return what lies at `path`, without connecting to it."""
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
    """Return what there is of a folder."""
    nearest = next(each for each in (path, *path.absolute().parents) if _is_there(each))
    writable = os.access(nearest, os.W_OK | os.X_OK, effective_ids=True)
    return Folder(path, nearest == path, writable, shutil.disk_usage(nearest).free)


def read_cache(path: Path) -> Folder:
    """Return what there is of the cache, judged as whose it is, for root may be who looks."""
    folder, refusal = read_folder(path), ""
    if folder.exists:
        try:
            refuse_untrusted_cache(path, owner=Owner.of_folder(path))
        except UntrustedError as error:
            refusal = str(error)
    return replace(folder, refusal=refusal)


def closed_to_others(path: Path) -> Path | None:
    """Return the first of the folders above, of `path` and what is in it, that is not for all."""
    for folder in reversed(path.absolute().parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    inside = (each for each in (path, *path.rglob("*")) if not each.stat().st_mode & stat.S_IROTH)
    return next(inside, None)


def check_open(check: str, closed: Path | None) -> Iterator[Finding]:
    """Whether a service, which has a user of its own, can read something, but for `closed`."""
    if closed is not None:
        advice = "`chmod -R a+rX`, or move it: /root and /home are closed to units in any case"
        yield warning(check, f"the service's user cannot read {closed}", advice)


def check_place(place: Place, user: User, system: Place | None = None) -> Iterator[Finding]:
    """Whether this user may connect to what lies there.

    `system` is where the host's own daemon listens, which a user's default may hide.
    """
    path = place.path
    if len(os.fsencode(path)) > LONGEST_PATH:
        found = f"{path} is longer than the {LONGEST_PATH} bytes that a Unix socket's path may be"
        yield error("socket", found, "choose a shorter one: SIDECAR_SOCKET")
    elif place.kind == "nothing" and system and system.kind == "socket":
        found = f"nothing at {path}, but a socket at {system.path}"
        advice = f"set SIDECAR_SOCKET={system.path}, for clients, too: XDG_RUNTIME_DIR goes first"
        yield warning("socket", found, advice)
    elif place.kind == "nothing":
        advice = "start one: `systemctl start sidecar.socket`, or `sidecar serve`"
        yield note("socket", f"nothing at {path}: no daemon has listened there", advice)
    elif place.kind == "other":
        yield error("socket", f"{path} is not a socket", "move it away, or choose another path")
    elif place.kind == "hidden":
        found = f"user {user.uid} may not enter a folder above {path}"
        yield error("socket", found, "`namei -l` shows which; the folder needs mode 0755")
    elif not place.may_connect:
        found = f"user {user.uid} may not connect: {_seen(place)}"
        advice = f"`usermod -aG {place.group} USER`, then log in again"
        yield error("socket", found, advice)
    elif place.mode & stat.S_IWOTH:
        yield note("socket", f"everybody may connect: {_seen(place)}", "mode 0660 keeps it a group")
    else:
        yield ok("socket", f"user {user.uid} may connect: {_seen(place)}")


def check_socket_folder(folder: Folder, place: Place) -> Iterator[Finding]:
    """Whether a daemon of this user could put its socket there."""
    if place.kind == "nothing" and not folder.writable:
        found = f"this user cannot put a socket into {folder.path}"
        yield warning("socket", found, "let systemd's sidecar.socket make it, or choose another")


def check_allowed(config: Config, user: User) -> Iterator[Finding]:
    """Whether the daemon's own lists let this user in."""
    if not config.allow_users and not config.allow_groups:
        yield ok("allow-lists", "none: whoever may open the socket may use the models")
        return
    found = f"users {_listed(config.allow_users)} and groups {_listed(config.allow_groups)}"
    if user.uid in config.allow_users or user.gids & config.allow_groups:
        yield ok("allow-lists", f"{found}, which let user {user.uid} in")
    else:
        advice = "SIDECAR_ALLOW_USERS and SIDECAR_ALLOW_GROUPS say who; both empty: everybody"
        yield warning("allow-lists", f"{found}, which leave out user {user.uid}", advice)


def check_cache(folder: Folder, missing_bytes: int) -> Iterator[Finding]:
    """Whether models of `missing_bytes` that are still to be prepared can be kept."""
    found = f"{folder.path}, {folder.free / 1e9:,.1f} GB free"
    if folder.refusal:
        advice = "until then a daemon exits with 78 where it needs it, or does without"
        yield error("cache", folder.refusal, advice)
    if not missing_bytes:
        yield ok("cache", f"{found}; nothing to be prepared")
    elif not folder.writable:
        advice = "set SIDECAR_CACHE_DIR, or prepare with `sidecar prepare` and name the artifact"
        yield error("cache", f"this user cannot write {folder.path}", advice)
    elif folder.free < _ROOMY * missing_bytes:
        yield error("cache", f"{found}; too little to prepare", "make room: twice the FP32 weights")
    else:
        yield ok("cache", f"{found}{'' if folder.exists else '; will be made'}")


def _seen(place: Place) -> str:
    return f"{place.path} has mode {place.mode:04o}, group {place.group}"


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_there(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False
