"""The Python API, whose names `runner` exports: the same checks, runs and folders as on the command line.

calls.py          `train`, `sweep`, `run`, `compose` and `result`
load.py           `runner.load`: the model of a run folder
result.py         `Result`: how a run ended, its curves and its figures
session.py        one call: what it sets in this process, and sets back
torch_state.py    the settings of torch during a call, and the caller's afterwards
main_options.py   the components that a notebook or script registers itself, as options
"""
