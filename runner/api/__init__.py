"""The Python API, whose names `runner` exports; torch is imported at the first use of one.

load.py  `runner.load`: the model of a run folder
"""
