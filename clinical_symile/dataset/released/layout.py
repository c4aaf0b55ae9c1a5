"""Where things lie in Symile-MIMIC 1.0.0 as PhysioNet ships it: which files are used, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from clinical_symile.errors import InputError
from clinical_symile.types import Split

Part = Literal["train", "val", "val_retrieval", "test"]
"""The release has four folders of tensors. ``val_retrieval`` holds the admissions of ``val`` again, ten times, as candidates."""

PARTS: Final[tuple[Part, ...]] = ("train", "val", "val_retrieval", "test")
RETRIEVAL: Final[tuple[Part, ...]] = ("val_retrieval", "test")
SPLIT_OF: Final[dict[Part, Split]] = {"train": "train", "val": "val", "val_retrieval": "val", "test": "test"}

FULL: Final[tuple[Part, ...]] = ("train", "val", "test")
"""Parts whose pictures, ECGs and labs are taken; those of ``val_retrieval`` would be read for nothing."""

DATA_CSV: Final = "symile_mimic_data.csv"
LABS_MEANS: Final = "labs_means.json"

BIG: Final = ("cxr", "ecg")
LABS: Final = ("labs_percentiles", "labs_missingness")
QUERY: Final = ("label_hadm_id", "label")


def tensor_name(what: str, part: Part) -> str:
    """Path of a tensor within the release, such as ``data_npy/train/cxr_train.npy``."""
    return f"data_npy/{part}/{what}_{part}.npy"


def csv_name(part: Part) -> str:
    """Path of a part's table within the release, such as ``val_retrieval.csv``."""
    return f"{part}.csv"


@dataclass(frozen=True)
class Release:
    """A folder that holds every file that is used.

    Attributes:
        folder: the root of the release.
    """

    folder: Path

    @property
    def small(self) -> tuple[str, ...]:
        """Tables, row keys and laboratory arrays: a few dozen MB, read into memory."""
        keys = [tensor_name("hadm_id", part) for part in PARTS]
        queries = [tensor_name(what, part) for part in RETRIEVAL for what in QUERY]
        labs = [tensor_name(what, part) for part in FULL for what in LABS]
        return (DATA_CSV, LABS_MEANS, *(csv_name(part) for part in PARTS), *keys, *queries, *labs)

    @property
    def big(self) -> tuple[str, ...]:
        """Pictures and ECGs: gigabytes, read row by row."""
        return tuple(tensor_name(what, part) for part in FULL for what in BIG)

    def path(self, name: str) -> Path:
        """A file of the release."""
        return self.folder / name

    def size(self, names: tuple[str, ...]) -> int:
        """Bytes of some files together."""
        return sum(self.path(name).stat().st_size for name in names)


def find_release(folder: Path) -> Release:
    """Finds the release in a folder; nothing is read yet.

    Raises:
        InputError: the folder or a file that is used is missing; the message says what to download or which folder to give.
    """
    root = folder.expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the folder of Symile-MIMIC that holds {DATA_CSV}")
    if not (root / DATA_CSV).is_file():
        nearby = sorted(path.parent for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/{DATA_CSV}"))
        hint = f"; did you mean {nearby[0]}?" if nearby else "; give the folder of Symile-MIMIC that holds it"
        raise InputError(f"{root / DATA_CSV}: there is no such file{hint}")
    release = Release(root)
    missing = [name for name in (*release.small, *release.big) if not release.path(name).is_file()]
    if missing:
        others = f" (and {len(missing) - 1} others: {', '.join(missing[1:])})" if len(missing) > 1 else ""
        torch_files = [name for name in missing if release.path(name).with_suffix(".pt").is_file()]
        remedy = (
            "only the .npy files of PhysioNet's release are read, not .pt"
            if torch_files
            else "download it from physionet.org/content/symile-mimic/1.0.0"
        )
        raise InputError(f"{release.path(missing[0])}: there is no such file{others}; {remedy}")
    return release
