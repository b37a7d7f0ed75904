"""The two calls: convert all models of a manifest, or look whether it is sound."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from quark_onnx.core.errors import ConfigError
from quark_onnx.zoo.events import Told, ZooResult, unheard

Source = str | Path | Mapping[str, object]


def convert_zoo(
    source: Source,
    output: str | Path,
    *,
    defaults: Mapping[str, object] | None = None,
    workers: int | None = None,
    memory: str | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    scheduler: str | None = None,
    report: bool = True,
    progress: Told = unheard,
) -> ZooResult:
    """Convert every model of a manifest, of a folder, or of a dictionary with the keys of a manifest.

    Nothing is started unless the whole manifest is sound. What an earlier run has done, and is still right, is kept:
    the same call goes on after a crash or Ctrl-C, and does nothing when there is nothing left to do.

    Args:
        output: a new folder, or that of an earlier run.
        defaults: what the manifest does not say, by the keys of its entries.
        workers: models at a time, default: one for every core.
        memory: of each model's process, such as "4GB"; default: its share of the machine.
        threads: cores that each may keep busy; default likewise.
        timeout: seconds of one attempt, for models that have no limit of their own.
        scheduler: address of a dask.distributed scheduler that is there, instead of workers on this machine.
        report: also make pages, of each model and of the zoo, where the extra `report` is installed.
        progress: called with an `Event` for everything that happens, from another thread.

    Raises:
        ManifestError: everything that is wrong with the manifest.
        ConfigError: the extra is not installed, the output cannot be used, or no scheduler answers.
    """
    _need_extra()
    from quark_onnx.report.pages import installed
    from quark_onnx.zoo.run import read, run

    entries = read(source, Path(output), defaults, timeout, strict=False)
    return run(
        entries,
        Path(output),
        progress,
        scheduler=scheduler,
        workers=workers,
        memory=memory,
        threads=threads,
        title="Model zoo" if isinstance(source, Mapping) else Path(source).stem,
        pages=report and installed(),
    )


def check_zoo(source: Source, output: str | Path, *, defaults: Mapping[str, object] | None = None) -> list[str]:
    """The names of the models that `convert_zoo` would convert. Here a missing model is a problem, too.

    Raises:
        ManifestError, ConfigError: as above.
    """
    _need_extra()
    from quark_onnx.zoo.run import read

    return [entry.name for entry in read(source, Path(output), defaults, None, strict=True)]


def _need_extra() -> None:
    if lacking := [name for name in ("distributed", "psutil", "yaml") if find_spec(name) is None]:
        raise ConfigError(
            f"converting a zoo needs {lacking[0]}, which is not installed: pip install 'quark-onnx[cluster]'"
        )
