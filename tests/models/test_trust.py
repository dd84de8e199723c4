"""Only a daemon's own user and root may be able to change what is served."""

import grp
import os
import pwd
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidecar.models import trust
from sidecar.models.errors import UntrustedError
from sidecar.models.trust import Owner, refuse_untrusted, refuse_untrusted_cache

OWN, OTHER = 61_234, 61_235  # users and groups that exist on no host
ME = Owner(OWN, frozenset({OWN}))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file owned by a daemon's own user."""
    path = tmp_path / "model.onnx"
    path.write_text("")
    path.chmod(0o644)
    os.chown(path, OWN, OWN)
    return path


def refusal(path: Path, owner: Owner = ME) -> str:
    try:
        refuse_untrusted(path, owner=owner)
    except UntrustedError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("uid", [OWN, 0])
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755])
def test_own_and_roots_files_are_served(file: Path, uid: int, mode: int) -> None:
    """Files of the daemon's user and of root are served."""
    file.chmod(mode)
    os.chown(file, uid, uid)
    assert refusal(file) == ""


def test_another_users_file_is_refused(file: Path) -> None:
    """Another user's file is refused, whatever its mode; root trusts only itself."""
    file.chmod(0o400)
    os.chown(file, OTHER, OWN)
    message = refusal(file)
    assert message.startswith(f"{file} belongs to user {OTHER} (mode 0400), not to the user")
    assert f"only root and user {OWN} may" in message
    assert f"`chown -hR {OWN} {file.parent} && chmod -R go-w {file.parent}`" in message
    os.chown(file, OWN, OWN)
    assert "only root may" in refusal(file, Owner(0, frozenset({0})))


@pytest.mark.parametrize("uid", [OWN, 0])
def test_what_everybody_may_write_to_is_refused(file: Path, uid: int) -> None:
    """What everybody may write to is refused, except a cache with the sticky bit."""
    os.chown(file, uid, uid)
    file.chmod(0o646)
    assert "has mode 0646, so that everybody may write to it" in refusal(file)
    file.parent.chmod(0o1777)
    assert "everybody" in refusal(file.parent)
    refuse_untrusted_cache(file.parent, owner=ME)
    file.parent.chmod(0o777)
    with pytest.raises(UntrustedError, match="everybody"):
        refuse_untrusted_cache(file.parent, owner=ME)
    os.chown(file.parent, OTHER, OTHER)
    file.parent.chmod(0o1777)
    with pytest.raises(UntrustedError, match="belongs to"):
        refuse_untrusted_cache(file.parent, owner=ME)


def test_a_group_of_nobody_else_may_write(file: Path) -> None:
    """A file that its owner's private group may write to is served; another group's is refused."""
    file.chmod(0o664)
    assert refusal(file) == ""
    os.chown(file, OWN, OTHER)
    assert f"so that group {OTHER} may write to it" in refusal(file)
    assert refusal(file, Owner(OWN, frozenset({OWN, OTHER}))) == ""
    os.chown(file, OWN, 0)
    assert "group root (0)" in refusal(file)
    assert refusal(file, Owner(OWN, frozenset({0}))) == ""  # as containers run any user


@pytest.mark.parametrize("shared", ["by membership", "as the first group"])
def test_a_group_with_others_in_it_may_not(
    file: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """A file is refused if a group with other members, such as `users`, may write to it."""
    file.chmod(0o664)
    members = ["somebody"] if shared == "by membership" else []
    gid = OWN if shared == "as the first group" else OTHER
    somebody = SimpleNamespace(pw_name="somebody", pw_uid=OTHER, pw_gid=gid)
    group = SimpleNamespace(gr_name="users", gr_mem=members)
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    monkeypatch.setattr(pwd, "getpwall", lambda: [somebody])
    monkeypatch.setattr(pwd, "getpwnam", lambda _: somebody)
    assert f"group users ({OWN}) may write to it" in refusal(file)


def test_a_link_is_judged_with_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    """A symbolic link is judged by its own owner, and by its target."""
    link = tmp_path / "link"
    link.symlink_to(file)
    assert refusal(link) == ""
    os.chown(file, OTHER, OTHER)
    assert f"belongs to user {OTHER}" in refusal(link)
    os.chown(file, OWN, OWN)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    assert f"is a symbolic link that belongs to user {OTHER}" in refusal(link)


def test_an_open_file_is_judged_as_it_is(file: Path, tmp_path: Path) -> None:
    """An open file is judged by itself, not by what has since replaced it."""
    os.chown(file, OTHER, OTHER)
    with file.open() as opened:
        facts = os.fstat(opened.fileno())
    good = tmp_path / "good"
    good.write_text("")
    good.replace(file)
    with pytest.raises(UntrustedError):
        refuse_untrusted(file, facts, owner=ME)


def test_an_access_list_may_name_others(file: Path) -> None:
    """A file with an access list is refused if its mask allows writing."""
    file.chmod(0o664)
    assert not trust._has_acl(file)
    entries = [(1, 6, -1), (2, 6, OTHER), (4, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no access lists on this file system")
    assert file.stat().st_mode & 0o777 == 0o664
    assert "may write to it" in refusal(file)


def test_a_folder_tells_on_whose_behalf_to_judge(tmp_path: Path) -> None:
    """A folder's owner has that user's group or, if the user is unknown, the folder's group."""
    os.chown(tmp_path, OWN, OTHER)
    assert Owner.of_folder(tmp_path) == Owner(OWN, frozenset({OTHER}))
    os.chown(tmp_path, 65534, OTHER)
    group = pwd.getpwuid(65534).pw_gid
    assert Owner.of_folder(tmp_path) == Owner(65534, frozenset({group}))


def test_a_process_is_in_all_of_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process counts as a member of all of its groups."""
    monkeypatch.setattr(os, "geteuid", lambda: OWN)
    monkeypatch.setattr(os, "getegid", lambda: OWN)
    monkeypatch.setattr(os, "getgroups", lambda: [OTHER, OTHER + 1])
    assert Owner.of_this_process() == Owner(OWN, frozenset({OWN, OTHER, OTHER + 1}))
