"""Small experiments with known answers: does the loss find what it should, and no more? One module each.

Each module has a configuration, ``cells`` (independent pieces of work), ``run_cell`` (one of them), ``summarise`` and ``draw``;
``running.py`` does the rest.
"""
