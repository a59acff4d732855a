"""The run doctor: rules that read the logged curves of a run and say what may be wrong with it.

finding.py    a finding: severity, evidence, advice
facts.py      what the run was
history.py    its curves
diagnosis.py  runs the rules
order.py      the findings that are shown, and their order
symptoms/     the rules, each a function under `@register("symptom")`
"""

from runner.doctor.diagnosis import diagnose
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History, Series, read_history

__all__ = ["Evidence", "Finding", "History", "Series", "Severity", "diagnose", "read_history"]
