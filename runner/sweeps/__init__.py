"""Many runs, each in its own process: none lost, none run twice; no torch on this side of the processes.

launcher.py      what a launcher is, its settings, and the loop over known runs
search_loop.py   the loop of a search
pool.py          our launcher: a pool of processes
in_process.py    the launcher that runs everything in this process
worker_group.py  the processes of a pool
running.py       a trial that waits or runs
outcome.py       how a trial ended
display.py       the live table, the lines, the final table
channel.py       messages between processes
server.py        the server process between a sweep and its trials
forks.py         the forked processes, as the server sees them
template.py      the process that trials are forks of
loading.py       what a process loads before it runs trials
trial.py         one trial in its process
"""
