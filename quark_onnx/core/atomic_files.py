"""Outputs are written to a temporary name beside the target and renamed: whole, or not there at all.

A link stays: what it leads to is written. Devices, pipes and sockets stay, too: they are refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

from quark_onnx.core.errors import ConfigError, QuarkError
from quark_onnx.core.resource_faults import shortage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BESIDE = ".quark_onnx-"
"""How names of temporary folders begin. A process that is killed leaves one, which the next one there removes."""

NEW = 60
"""Seconds in which a temporary folder may not be locked yet."""


def unwritable(target: Path, error: OSError) -> QuarkError:
    """Why `target` cannot be written: for want of space, or for a reason of its own."""
    return shortage(error, target) or ConfigError(f"cannot write {target}: {error.strerror or error}")


def behind_links(path: Path) -> Path:
    """Where a file or folder goes that is written to `path`.

    Raises:
        ConfigError: there is a device, a pipe or a socket, or a link that leads in a circle.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    except OSError as error:
        raise unwritable(path, error) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ConfigError(f"{path} is a device, a pipe or a socket, which no file may replace; choose a file name")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


Named = Mapping[str, Path | None]
"""Paths by what the user calls them; None: not asked for."""


def keep_apart(files: Named, folders: Named | None = None, inputs: Named | None = None) -> None:
    """Make sure that no output takes the place of another, or of an input, before any work is done.

    Args:
        files: that will be written.
        folders: that will be replaced as a whole.
        inputs: files that are read.

    Raises:
        ConfigError: two are the same, however they are spelled; one is inside of a folder that is replaced; a file is
            a folder.
    """
    replaced = _given(folders)
    written = _given(files) | replaced
    for name, path in written.items():
        if name not in replaced and path.is_dir():
            raise ConfigError(f"{name} {path} is a folder; give a file name")
        for other, taken in (written | _given(inputs)).items():
            if other != name and same_file(path, taken):
                raise ConfigError(f"{name} {path} is {other}; choose another name")
            if other != name and name in replaced and _inside(taken, path):
                raise ConfigError(f"{other} {taken} is in {path}, which {name} replaces; choose another place for it")


def _given(named: Named | None) -> dict[str, Path]:
    return {name: path for name, path in (named or {}).items() if path is not None}


def free_output(source: object, output: str | Path | None) -> Path | None:
    """The output path, found usable before any work is done.

    Raises:
        ConfigError: it is no path, the input model, a folder, or below something that cannot be written to.
    """
    if output is None:
        return None
    if not isinstance(output, str | PathLike):
        raise ConfigError(f"model_output must be the name of a file, not {output!r}")
    path = Path(output)
    target = behind_links(path)
    if path.is_dir():
        raise ConfigError(f"model_output {path} is a folder; give a file name such as {path / 'model_int8.onnx'}")
    if isinstance(source, (str, Path)) and same_file(path, Path(source)):
        raise ConfigError(f"model_output {path} is the input model, which is never modified; choose another name")
    below = next(parent for parent in target.absolute().parents if parent.exists())
    if not below.is_dir() or not os.access(below, os.W_OK):
        raise ConfigError(f"model_output {path} cannot be written: {below} is not a folder that you may write to")
    return path


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file. Where neither is there, case does not count: some file systems ignore it."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return not one.exists() and not other.exists() and _spelled(one) == _spelled(other)


def _inside(path: Path, folder: Path) -> bool:
    return _spelled(path) != _spelled(folder) and Path(_spelled(path)).is_relative_to(_spelled(folder))


def _spelled(path: Path) -> str:
    return os.path.realpath(path).casefold()


def usable_folder(path: Path, parts: Sequence[str]) -> Path:
    """Where a folder of these files goes, found fit before any work is done.

    Raises:
        ConfigError: there is something that is not, or not only, an earlier folder of the kind, which has the first of
            these files. What else is in it would be lost.
    """
    target = behind_links(path)
    if target.exists() and not (target / parts[0]).is_file():
        raise ConfigError(f"{path} exists and holds no {parts[0]}; choose another output folder or remove it")
    strangers = {file.name for file in target.iterdir()} - {*parts} if target.exists() else ()
    if strangers:
        raise ConfigError(f"{path} also holds {min(strangers)!r}, which would be lost; choose another folder")
    return target


@contextlib.contextmanager
def new_folder(path: Path, parts: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that becomes `path`, in place of one of its kind, when the block ends well.

    Args:
        parts: names of the files that it may hold, see `usable_folder`.

    Raises:
        ConfigError, ResourceError: `path` exists and is something else, or cannot be written.
    """
    target = usable_folder(path, parts)
    try:
        with _beside(target) as temporary:
            temporary.mkdir()
            yield temporary
            replace_folder(temporary, target, temporary.with_name("replaced"))
    except OSError as error:
        raise unwritable(path, error) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes the file `path`, in place of one that exists, when the block ends well.

    Raises:
        ConfigError, ResourceError: `path` cannot be written.
    """
    target = behind_links(path)
    try:
        with _beside(target) as temporary:
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        raise unwritable(path, error) from error


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """The name of `target` in a temporary folder, which only its owner can read, on the same file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    with tempfile.TemporaryDirectory(prefix=BESIDE, dir=target.parent) as folder, contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where nothing can be locked, nobody sweeps either
            held.enter_context(_locked(Path(folder)))
        yield Path(folder) / target.name


def _sweep(folder: Path) -> None:
    """Remove temporary folders that no process holds any more."""
    for left in folder.glob(f"{BESIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > NEW:
                with _locked(left):
                    shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder until the block or the process ends, however it does.

    Raises:
        OSError: another process holds it, or the system has no such locks.
    """
    if fcntl is None:
        raise OSError("no locks")
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Put a folder into the place of another, which ends up at `new` or `aside`. Linux does it in one step."""
    if not target.exists():
        os.replace(new, target)
    elif not _swapped(new, target):
        os.replace(target, aside)
        try:
            os.replace(new, target)
        except BaseException:
            os.replace(aside, target)
            raise


def _swapped(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system, its C library or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
