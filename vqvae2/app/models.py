"""The models that an app was started with; users choose among them and cannot name others."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from vqvae2.messages import did_you_mean
from vqvae2.pipeline import Pipeline
from vqvae2.pipeline.editing import code_patches
from vqvae2.runs.folder import RunFolder

Signature = tuple[tuple[str, int], ...]
"""The files of a model with the times of their last change."""


@dataclass
class Entry:
    """A model by its name.

    Arguments:
        source: as the user named it: a run folder, a saved pipeline, or a name.
        folder: the run, or None for a model without one.
        pipeline: the models, or None where nothing is trained yet.
        problem: why there is no pipeline.
        signature: of the files when they were read.
        patches: of each level that was asked for, see `code_patches`.
    """

    source: str
    folder: RunFolder | None
    pipeline: Pipeline | None = None
    problem: str = ""
    signature: Signature = ()
    patches: dict[int, Tensor] = field(default_factory=dict)


class Catalogue:
    """Opens models once, and again when training has changed them.

    A model whose files are gone stays as it was opened.

    Arguments:
        sources: run folders, saved pipelines or names, at least one.
        device: where the models compute.

    Raises:
        ValueError: a source is neither a model nor a run.
    """

    def __init__(self, sources: Sequence[str], device: str = "cpu") -> None:
        self.device, self.lock = device, threading.Lock()
        self.entries: dict[str, Entry] = {}
        for source in sources:
            folder = RunFolder(Path(source))
            entry = Entry(source, folder if folder.exists() and is_run(folder) else None)
            self.read(entry)
            if entry.pipeline is None and entry.folder is None:
                raise ValueError(entry.problem)
            self.entries[self.short_name(source)] = entry

    def short_name(self, source: str) -> str:
        """The last part of a path, or all of it where another model has the same."""
        name = Path(source).resolve().name if Path(source).exists() else source
        return source if name in self.entries else name

    def read(self, entry: Entry) -> None:
        """Opens the models of an entry; a failure keeps those that were opened before."""
        entry.signature = signature(entry.source)
        try:
            entry.pipeline = Pipeline.open(entry.source).to(self.device)
            entry.patches = {}
        except ValueError as error:
            entry.problem = str(error)

    @property
    def names(self) -> list[str]:
        """All models, in the order of the command line."""
        return list(self.entries)

    def entry(self, name: str) -> Entry:
        """A model, opened again if its files have changed."""
        if name not in self.entries:
            raise ValueError(f"Unknown model {name!r}; {did_you_mean(str(name), self.entries)}")
        entry = self.entries[name]
        with self.lock:
            now = signature(entry.source)
            if now and now != entry.signature:
                self.read(entry)
        return entry

    def pipeline(self, name: str) -> Pipeline:
        """The models of a name; ValueError where nothing is trained yet."""
        entry = self.entry(name)
        if entry.pipeline is None:
            raise ValueError(entry.problem)
        return entry.pipeline

    def folder(self, name: str) -> RunFolder:
        """The run of a name; ValueError for a model without one."""
        folder = self.entry(name).folder
        if folder is None:
            raise ValueError(
                f"{name} is a model without a run folder; start the app with the folder of a run "
                "to see its curves, health and report."
            )
        return folder

    def patches(self, name: str, level: int) -> Tensor:
        """`code_patches` of a level, computed once."""
        pipeline, entry = self.pipeline(name), self.entry(name)
        with self.lock:
            if level not in entry.patches:
                entry.patches[level] = code_patches(pipeline, level)
        return entry.patches[level]

    @property
    def pipelines(self) -> list[Pipeline]:
        """All models that are trained."""
        return [entry.pipeline for entry in self.entries.values() if entry.pipeline is not None]

    @property
    def num_levels(self) -> int:
        """Levels of the model that has most."""
        return max([p.autoencoder.config.num_levels for p in self.pipelines], default=1)


def is_run(folder: RunFolder) -> bool:
    """Whether a folder with a config.json is a run, and not a saved pipeline."""
    return not (folder.path / "autoencoder" / "config.json").is_file()


def signature(source: str) -> Signature:
    """The files of a model with the times of their last change; () where there are none."""
    root = Path(source) / "model" if (Path(source) / "model").is_dir() else Path(source)
    if not root.is_dir():
        return ()
    files = [root / "config.json", *sorted(root.glob("*/config.json"))]
    files += sorted(root.glob("priors/*/config.json"))
    return tuple((str(path), path.stat().st_mtime_ns) for path in files if path.is_file())
