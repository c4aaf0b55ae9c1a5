"""A process that decodes one DICOM file with GDCM and may crash alone: ``python -m …isolated_decoder FILE``.

Writes the stored values to standard output in NumPy's .npy format. Exit code 1: the file could not be decoded.
"""

from __future__ import annotations

import resource
import sys

MEMORY_BYTES = 4 * 2**30
CPU_SECONDS = 60


def main() -> int:
    """Decodes ``sys.argv[1]``."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the picture

    import numpy as np
    import pydicom

    from clinical_symile.modalities.dicom_pixels import DAMAGE, ISOLATED_PLUGIN, PIXEL_ATTRIBUTES

    try:
        dataset = pydicom.dcmread(sys.argv[1], specific_tags=list(PIXEL_ATTRIBUTES))
        dataset.pixel_array_options(decoding_plugin=ISOLATED_PLUGIN)
        stored = dataset.pixel_array
    except (*DAMAGE, MemoryError):
        return 1
    np.save(sys.stdout.buffer, stored, allow_pickle=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
