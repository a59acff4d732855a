"""Run many trials, each in its own process, and lose none; the sweep's own process imports no torch.

launcher.py          the launcher protocol, the settings of runner's launcher, and the loop over known runs
search_loop.py       the loop of a search
stop_rules.py        rules that end a sweep before its last trial
pool.py              runner's launcher: a pool of processes
own_process.py       a trial in a process of its own, for launchers of Hydra
launch_folder.py     the folder by which a launcher of Hydra knows that a sweep still wants its trials
submitted_job.py     a trial that was submitted to a scheduler
job_records.py       the jobs that a sweep submitted, kept in its folder
slurm.py             what Slurm says about jobs
in_process.py        the launcher that runs everything in this process
worker_group.py      the processes of a pool
running.py           a trial that waits or runs
outcome.py           how a trial ended
failures.py          failed trials: the error of their sweep, another attempt, or the end of all
owning.py            writes in a trial's folder, which only its holder makes
disk_use.py          the disk that the trials will take, before the first one starts
run_sizes.py         the sizes of runs, estimated where torch is imported
places.py            the folder of each trial, before it starts
origin_check.py      which trials are of other code or versions, and where they go if they run again
last_step.py         how far a killed trial came
ask_process.py       a function called in another process, which imports torch
data_check.py        which runs are of the same data, and where those of other data go
display.py           live table, lines, and why trials ended early
fallback_display.py  the display that takes the place of one that fails
final_table.py       the table at the end
grid_points.py       the trials of a grid as points, with their seeds together
swept.py             the swept keys, the columns of the tables
channel.py           messages between processes
server.py            the server process between a sweep and its trials
forks.py             the forked processes, as the server sees them
template.py          the process that trials are forks of
loading.py           the imports and data that a process loads before trials
trial.py             one trial in its process
"""
