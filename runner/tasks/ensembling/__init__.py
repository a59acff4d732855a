"""The parts of task=ensemble.

candidates.py   the models that can be members: found, read, compared; duplicates are left out
outputs.py      the log-probabilities of each of them on a split: saved ones where they are valid, else predicted
soups.py        the averaged weights of some of them, with statistics of BatchNorms from training data
selection.py    which of them become members, with which weights; the temperature
combining.py    an ensemble of them, with its scores
reports.py      the reports on it
folder.py       the folder of an ensemble
"""
