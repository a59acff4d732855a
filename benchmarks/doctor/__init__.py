"""`python -m benchmarks.doctor`: how often the run doctor finds an injected fault, and how often it alarms for nothing.

faults.py     the faults, each a few overrides or altered data, with the symptoms that name its cause
data_sets.py  the data sets, whole or altered, as .npz files
plan.py       which runs are made, and which of them may be looked at while a rule is tuned
bank.py       makes the runs and keeps their curves as JSON
scores.py     what the rules find in the curves
split.json    the plan's split into tuning and held-out nets, data sets and seeds, committed before the rules were tuned
"""
