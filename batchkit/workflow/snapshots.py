"""Snapshots of a workspace: an archive and a manifest beside it, proved before either counts.

    snapshots/NAME.tar.gz         a gzip'd tar (POSIX.1-2001, pax) at the fastest level
    snapshots/NAME.tar.gz.json    {"format": 1, "files", "bytes", "mode", "sha256", "entries": {path: sha256 or null}}

where mode is the workspace's and the first sha256 the archive's.

Making one reads the archive back and compares each file with what was read from the workspace. Restoring unpacks into a
directory beside the workspace, compares again, and then renames: the workspace is moved away, the new one takes its
place, the old one is removed. A restore that was killed is taken up where it was: the names on disk tell.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import stat
import tarfile
from typing import IO, Any

from batchkit import files
from batchkit.errors import DamageError, StorageError, UsageError
from batchkit.workflow.context import Paused
from batchkit.workflow.record import Point, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT = 1
_LEVEL = 1
"""Of gzip: the default takes four times as long for a tenth less."""
_BLOCK = 1 << 20


def check_workspace(workspace: str, state: str) -> None:
    """Raise `UsageError` for a workspace that cannot be archived and replaced."""
    real = os.path.realpath(workspace)
    if _is_in(os.path.realpath(state), real):
        raise UsageError(
            f"the state directory '{state}' is inside the workspace '{workspace}', which a rollback replaces; give "
            "another --state-dir"
        )
    if os.path.islink(workspace) or os.path.ismount(workspace):
        raise UsageError(
            f"the workspace '{workspace}' is a link or a mount point, which cannot be renamed; name a directory in it"
        )
    if os.path.exists(workspace) and not os.path.isdir(workspace):
        raise UsageError(f"the workspace '{workspace}' is not a directory")
    if _is_in(os.path.realpath(os.getcwd()), real):
        raise UsageError(
            f"the workspace '{workspace}' holds the working directory, which a rollback could not replace; run from "
            "outside of it"
        )


def _is_in(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


def take(workspace: str, archive: str, name: str, go_on: Callable[[], bool]) -> Point:
    """Archive a workspace and prove it; durable on return, and nothing is left where it fails.

    go_on: asked now and then. Raises `Paused` when that says no, `StorageError` for too little space or a file that
    changes meanwhile.
    """
    entries = list(_walk(workspace))
    with files.naming("read", workspace):
        size = sum(os.lstat(os.path.join(workspace, entry)).st_size for entry in entries)
    directory = os.path.dirname(archive)
    free = shutil.disk_usage(directory).free
    if size > free:
        raise StorageError(
            f"a snapshot of '{workspace}' may need {size:,} bytes, and '{directory}' has {free:,} free; make room, or "
            "keep less in the workspace"
        )
    new = archive + ".new"
    try:
        with files.naming("write", new), open(new, "wb") as file:
            digests = _write(workspace, entries, file, go_on)
            file.flush()
            files.kernel.fsync(file.fileno())
        _prove(new, digests)
        count = sum(each is not None for each in digests.values())
        manifest = {
            "format": FORMAT, "files": count, "bytes": size, "mode": stat.S_IMODE(os.stat(workspace).st_mode),
            "sha256": _digest_of(new), "entries": digests,
        }  # fmt: skip
        files.replace(archive + ".json", json.dumps(manifest, indent=1).encode() + b"\n")
        files.rename(new, archive)
    finally:
        files.remove(new)
    return Point(name, 0, now(), count, size, os.path.basename(archive))


def _walk(workspace: str) -> Iterator[str]:
    """Yield the paths of all that is in a workspace, relative, directories before what is in them."""
    for directory, directories, names in os.walk(workspace, onerror=_refuse):
        directories.sort()
        for name in sorted([*directories, *names]):
            yield os.path.relpath(os.path.join(directory, name), workspace)


def _refuse(error: OSError) -> None:
    raise StorageError(f"cannot read '{error.filename}': {error.strerror}; the snapshot would not be whole") from error


def _write(workspace: str, entries: list[str], file: IO[bytes], go_on: Callable[[], bool]) -> dict[str, str | None]:
    digests: dict[str, str | None] = {}
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL, format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if not go_on():
                raise Paused
            path = os.path.join(workspace, entry)
            with files.naming("read", path):
                info = tar.gettarinfo(path, entry)
            if info is None:
                raise StorageError(f"'{path}' is a socket, which cannot be in a snapshot; remove it")
            if info.islnk():  # a second name of a file in it: stored as a file, for it may be unpacked alone
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", os.lstat(path).st_size
            if not (info.isreg() or info.isdir() or info.issym()):
                raise StorageError(
                    f"'{path}' is neither file, directory nor link, and cannot be in a snapshot; remove it"
                )
            if info.isreg():
                with files.naming("read", path), open(path, "rb") as source:
                    digests[entry] = _add(tar, info, source, path)
            else:
                tar.addfile(info)
                digests[entry] = None
    return digests


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, source: IO[bytes], path: str) -> str:
    """Add a file; return its SHA-256. Raises `StorageError` if it changes meanwhile: what it held was never whole."""
    reading = _Reading(source)
    before = os.fstat(source.fileno())
    try:
        tar.addfile(info, reading)  # type: ignore[arg-type]  # it only reads
    except OSError:
        if source.tell() >= info.size:
            raise
    after = os.fstat(source.fileno())
    if (after.st_size, after.st_mtime_ns) != (info.size, before.st_mtime_ns):
        raise StorageError(f"'{path}' was changed while it was archived; nothing may write there now")
    return reading.digest.hexdigest()


class _Reading:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read some bytes."""
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _prove(archive: str, digests: dict[str, str | None]) -> None:
    """Raise `DamageError` unless an archive has these entries, with these contents."""
    found: dict[str, str | None] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for info in tar:
                source = tar.extractfile(info) if info.isreg() else None
                found[info.name] = None if source is None else _sha256(source)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DamageError(f"the archive '{archive}' cannot be read back: {error}") from error
    if found != digests:
        wrong = sorted(name for name in found.keys() | digests.keys() if found.get(name) != digests.get(name))
        raise DamageError(
            f"the archive '{archive}' is not what was put into it, from '{wrong[0]}' on; is something writing there?"
        )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _digest_of(path: str) -> str:
    with files.naming("read", path), open(path, "rb") as file:
        return _sha256(file)


# Restoring


def check_restorable(archive: str, workspace: str) -> None:
    """Raise before anything is touched: for an archive that is gone or damaged, or larger than the space there is."""
    manifest = _manifest_of(archive)
    if files.size(archive) is None:
        raise DamageError(f"the snapshot '{archive}' is gone; nothing was changed")
    if _digest_of(archive) != manifest["sha256"]:
        raise DamageError(
            f"the snapshot '{archive}' is damaged: its SHA-256 is not that of its manifest; nothing was changed"
        )
    parent = os.path.dirname(workspace)
    free = shutil.disk_usage(parent).free
    if manifest["bytes"] > free:
        raise StorageError(
            f"restoring '{workspace}' needs {manifest['bytes']:,} bytes, and '{parent}' has {free:,} free; make room "
            "first"
        )


def refuse_leftovers(workspace: str) -> None:
    """Raise `StorageError` for what a restore left that was never finished: it may be the only copy."""
    for left in _beside(workspace)[1:]:
        if os.path.lexists(left):
            raise StorageError(
                f"'{left}' is what the workspace was before a rollback that never ended; look what is in it, and move "
                "it away"
            )


def _beside(workspace: str) -> tuple[str, str]:
    """Return where a workspace is unpacked, and where the one that it replaces is meanwhile."""
    return workspace + ".batchkit-restored", workspace + ".batchkit-replaced"


def restore(archive: str, workspace: str) -> None:
    """Put what a snapshot holds in the place of a workspace; can be killed and called again. Durable on return."""
    aside, old = _beside(workspace)
    if not os.path.exists(old):
        _unpack(archive, aside)
        if os.path.exists(workspace):
            files.rename(workspace, old)
        else:
            files.make_directory(old)  # it stands for "unpacked and proved" all the same
    if os.path.exists(aside):  # else it has taken its place already
        files.rename(aside, workspace)
    with files.naming("remove", old):
        shutil.rmtree(old)
    files.sync_directory(os.path.dirname(workspace))


def _unpack(archive: str, aside: str) -> None:
    if os.path.exists(aside):
        shutil.rmtree(aside)  # of an unpacking that was killed, whose room is needed
    check_restorable(archive, aside)
    manifest = _manifest_of(archive)
    files.make_directory(aside)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(aside, filter=_safe)  # noqa: S202  # that is what the filter is for
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DamageError(
            f"the snapshot '{archive}' cannot be unpacked: {error}; the workspace is as it was"
        ) from error
    for entry, digest in manifest["entries"].items():
        path = os.path.join(aside, entry)
        if digest is not None and _digest_of(path) != digest:
            raise DamageError(f"'{entry}' of the snapshot '{archive}' is not what it was; the workspace is as it was")
        if digest is not None:
            files.sync_file(path)
    os.chmod(aside, manifest["mode"])
    for directory, _, _ in os.walk(aside):
        files.sync_directory(directory)


def _safe(info: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Refuse what would land outside (the filter of PEP 706), but leave links that lead outside as they were.

    They were links of the workspace; no file is written through one, for names never repeat.
    """
    if os.path.isabs(info.name):  # the filter would take the slash away, and put it somewhere inside
        raise tarfile.AbsolutePathError(info)
    if info.issym():
        name = copy.copy(info)
        name.type, name.linkname = tarfile.REGTYPE, ""
        tarfile.data_filter(name, path)  # for where the link itself would be
        return info
    return tarfile.data_filter(info, path).replace(mode=info.mode & 0o777, deep=False)


def _manifest_of(archive: str) -> dict[str, Any]:
    path = archive + ".json"
    data = files.read_bytes(path)
    try:
        manifest: dict[str, Any] = json.loads(data or b"")
        known = manifest["format"]
    except (ValueError, TypeError, KeyError):
        raise DamageError(f"the manifest '{path}' is gone or not readable; nothing was changed") from None
    if known != FORMAT:
        raise DamageError(
            f"'{path}' has the format {known!r}, and this batchkit knows {FORMAT}; use the one that wrote it"
        )
    return manifest


def remove(archive: str) -> None:
    """Remove a snapshot."""
    files.remove(archive)
    files.remove(archive + ".json")
