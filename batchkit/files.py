"""The only module that makes bytes durable: append, truncate, replace, sync.

All of it goes through `kernel`, one attribute per system call, so that the tests can put a kernel in its place that
records, fails, or kills the process at any call.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager, suppress

from batchkit.errors import DamageError, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o600
"""Mode of state files: they may quote the input."""

SHARED = 0o666
"""Mode of outputs, before the umask."""


def _sync_device(fd: int) -> None:
    """Flush `fd` through the drive's own cache; plain `fsync` on macOS stops short of it (fsync(2) there)."""
    import fcntl  # noqa: PLC0415  # only where F_FULLFSYNC exists

    fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]


class Kernel:
    """The system calls that read or change a disk."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    ftruncate = staticmethod(os.ftruncate)
    replace = staticmethod(os.replace)
    link = staticmethod(os.link)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    if sys.platform == "darwin":
        fsync = staticmethod(_sync_device)
        fdatasync = staticmethod(_sync_device)
    else:
        fsync = staticmethod(os.fsync)
        fdatasync = staticmethod(os.fdatasync)


kernel = Kernel()


@contextmanager
def naming(doing: str, path: str) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` that says what was being done to which path."""
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error


def storage_error(doing: str, path: str, error: OSError) -> StorageError:
    """Return the error to raise when the disk refused `doing` something to `path`."""
    reason = error.strerror or str(error)
    return StorageError(f"cannot {doing} '{path}': {reason}; mend that and run the same command again to go on")


class AppendFile:
    """A file that is cut to a known length when it is opened, and only grows from there.

    What `append` wrote survives a killed process; what `sync` covered survives a power cut. A failed sync is final:
    kernels mark the lost pages clean, so that a second sync would "succeed" without the data.
    """

    __slots__ = ("_failed", "fd", "length", "path", "synced")

    def __init__(self, path: str, length: int = 0, *, mode: int = PRIVATE) -> None:
        """Open `path`, making it if it is missing, and cut it to `length` bytes, taken to be synced; no links."""
        self.path = path
        self.length = length
        self.synced = length
        self._failed = False
        with naming("open", path):
            self.fd = kernel.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            try:
                self._cut(length)
            except BaseException:
                os.close(self.fd)
                raise

    def _cut(self, length: int) -> None:
        size = os.fstat(self.fd).st_size
        if size < length:
            raise DamageError(f"'{self.path}' has {size:,} of the {length:,} bytes it had; --restart starts over")
        if size > length:
            kernel.ftruncate(self.fd, length)
        os.lseek(self.fd, length, os.SEEK_SET)

    def append(self, data: bytes | memoryview) -> None:
        """Write all of `data` at the end; in the page cache on return."""
        try:
            written = kernel.write(self.fd, data)
            while written < len(data):  # a short write is no error: the next one says why, if there is a reason
                written += kernel.write(self.fd, data[written:])
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        self.length += len(data)

    def sync(self, *, found: bool = False) -> None:
        """Make everything appended before the call durable on return; another thread may append meanwhile.

        found: whether the file holds what an earlier process wrote, which may be only in the page cache.
        """
        length = self.length
        if self.synced == length and not found:
            return
        try:
            kernel.fdatasync(self.fd)
        except OSError as error:
            self._failed = True
            raise storage_error("sync", self.path, error) from error
        self.synced = length

    def close(self) -> None:
        """Close the file; syncs nothing. After a failed sync it is cut to what was synced. Harmless when repeated."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            if self._failed:
                with suppress(OSError):  # best effort, so that nobody builds on pages that are marked clean and are not
                    kernel.ftruncate(fd, self.synced)
            with naming("close", self.path):
                kernel.close(fd)


def overwrite(fd: int, data: bytes) -> None:
    """Give an open file other contents; for text that nothing depends on."""
    kernel.ftruncate(fd, 0)
    kernel.write(fd, data)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    with naming("sync", path):
        fd = kernel.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel.fsync(fd)
        finally:
            kernel.close(fd)


def sync_file(path: str) -> None:
    """Make a file's bytes durable, whoever wrote them; a missing file is fine."""
    with naming("sync", path):
        try:
            fd = kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            kernel.fsync(fd)
        finally:
            kernel.close(fd)


def make_directory(path: str, mode: int = 0o777) -> None:
    """Make a directory and the missing ones above it; the new names are durable on return.

    So is the name of a directory that is there already: the run that made it may have been killed before its sync.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(path):
        if not os.path.isdir(parent):
            make_directory(parent)
        with naming("make directory", path), suppress(FileExistsError):
            kernel.mkdir(path, mode)
    if os.access(parent, os.R_OK):
        sync_directory(parent)


def replace(path: str, data: bytes) -> None:
    """Replace a state file whole: readers and crashes see the old bytes or the new ones; durable on return."""
    new = path + ".new"
    refuse_link(path)
    remove(new)
    file = AppendFile(new)
    try:
        file.append(data)
        file.sync()
    finally:
        file.close()
    rename(new, path)


def show(path: str, data: bytes) -> None:
    """Replace a file whole, for other processes to see now; not durable, and of no use after a power cut."""
    new = f"{path}.{os.getpid()}.new"
    with naming("write", path):
        fd = kernel.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            overwrite(fd, data)
        finally:
            kernel.close(fd)
        kernel.replace(new, path)


def add_byte(path: str) -> None:
    """Make a file one byte longer; several processes may do so at once. Not durable."""
    with naming("write", path):
        fd = kernel.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        try:
            kernel.write(fd, b"+")
        finally:
            kernel.close(fd)


def detach(path: str) -> None:
    """Put a copy in the place of a file: who has it open writes where nobody reads. Durable on return."""
    if size(path) is None:
        return
    with naming("read", path), open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        copy = AppendFile(path + ".new", mode=mode)
        try:
            while chunk := file.read(1 << 20):
                copy.append(chunk)
            copy.sync()
        finally:
            copy.close()
    rename(path + ".new", path)


def rename(source: str, target: str) -> None:
    """Rename within one file system, replacing `target`; durable on return."""
    with naming("replace", target):
        kernel.replace(source, target)
    sync_directory(os.path.dirname(target))


def link(source: str, target: str) -> None:
    """Give a file a second name, replacing `target`. Not durable by itself."""
    remove(target)
    with naming("link", target):
        kernel.link(source, target)


def remove(path: str) -> None:
    """Remove a file; a missing one is fine. Not durable by itself."""
    with naming("remove", path), suppress(FileNotFoundError):
        kernel.unlink(path)


def remove_tree(path: str) -> None:
    """Remove a directory of ours with everything in it; a missing one is fine."""
    with naming("remove", path), suppress(FileNotFoundError):
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                remove(entry.path)
        kernel.rmdir(path)


def refuse_link(path: str) -> None:
    """Refuse a state file that is a symbolic link: replacing it would replace the link, not what it names."""
    if os.path.islink(path):
        raise DamageError(f"'{path}' is a symbolic link; batchkit keeps its state in plain files only")


def read_bytes(path: str) -> bytes | None:
    """Return a state file's bytes; `None` if there is no such file."""
    with naming("read", path):
        try:
            fd = kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            chunks = []
            while chunk := kernel.read(fd, 1 << 20):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            kernel.close(fd)


def size(path: str) -> int | None:
    """Return a file's length in bytes; `None` if there is no such file."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def refuse_shared_directory(path: str) -> None:
    """Refuse a state directory into which other users may write: they could change what a job does."""
    with naming("look at", path):
        mode = os.stat(path).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise StorageError(f"others may write into the state directory '{path}'; run: chmod go-w '{path}'")
