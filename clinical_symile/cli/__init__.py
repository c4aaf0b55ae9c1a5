"""The command line: one file per command group. Heavy imports happen inside the commands, so ``--help`` is quick."""
