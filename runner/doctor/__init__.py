"""The run doctor: rules that read the logged curves of a run and say what may be wrong with it.

finding.py     a finding: severity, evidence, advice
facts.py       what the run was
history.py     its curves
measures.py    statistics of curves: noise, trend, flatness
shapes.py      the parts of the training loss that are judged
evaluations.py scores on training and validation examples, with standard errors
layers.py      measurements of single layers
changes_advised.py  changes of a config that several symptoms advise
diagnosis.py   runs the rules
order.py       the findings that are shown, and their order
advice.py      overrides that rules advise
executable.py  drops the advice that does not compose
words.py       findings in words
checkup.py     finished runs together
probed.py      what a probe says about a finding
screen.py      a checkup on the screen
page.py        a checkup as Markdown, HTML and JSON
figures.py     curves with marks
symptoms/      the rules, each a function under `@register("symptom")`
"""

from runner.doctor.diagnosis import diagnose
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History, Series, read_history

__all__ = ["Evidence", "Finding", "History", "Series", "Severity", "diagnose", "read_history"]
