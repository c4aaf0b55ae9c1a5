"""``python -m clinical_symile``: the same as the command ``clinical-symile``."""

from clinical_symile.cli.main import main

if __name__ == "__main__":
    main()
