"""`python -m benchmarks.doctor`: how often the run doctor finds an injected fault, and how often it alarms for nothing.

nets.py       the healthy nets, and the ways in which healthy runs are trained
faults.py     the faults, each a few overrides, altered data or altered code, with the symptoms that name its cause
mutants.py    faults in the code: the order of the examples, the reduction of the loss, slow loading
made_data.py  the healthy data sets as arrays
data_sets.py  the data sets, whole or altered, as .npz files
plan.py       which runs are made, and which of them may be looked at while a rule is tuned
shown.py      runs that are made to show one symptom each, and close ones that do not
bank.py       makes the runs and keeps their curves as JSON
scores.py     what the rules find in the curves
report.py     the scores as Markdown
split*.json   the split of each bank into tuning and held-out nets, data sets and seeds, committed before its rules
results*.json the scores of each bank, with the rules at that time
"""
