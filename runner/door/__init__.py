"""From a command line to a checked config or a one-line error; imports no torch.

arguments.py        the flags
overrides.py        the overrides, parsed with Hydra's grammar
options.py          config folders: groups, options, YAML files
shipped.py          composition of options that come with runner
check_files.py      checks of a user's config files before Hydra reads them
compose.py          composition of one config from overrides
hydra_compose.py    composition by Hydra, for the files of users
check.py            the check of a whole config
sizes.py            one number for a square image, as two
field_keys.py       the keys of other libraries, and what to type for them
known_keys.py       which keys a command line can set, and which options have others
suggestions.py      what an unknown key is called here
variants.py         many configs that differ in a few places; `vary`
naming.py           names and hashes
weights_identity.py the SHA-256 of the weights that a run starts from
jobs.py             the jobs that tasks start with
plan.py             planning of a sweep
grid.py             every combination of listed values
plan_search.py      planning of a search
search_space.py     the space of a search
search_settings.py  the settings of a search
command.py          start of a run or a sweep
sweep.py            execution of a planned sweep
choose_launcher.py  the launcher of a sweep
sweep_end.py        the end of a sweep on the screen
resume_sweep.py     `resume=<sweep folder>`
saved_choices.py    the options of a saved run of which a command line changes a path
hydra_launchers.py  Hydra's launchers, and `--info`
hydra_config.py     Hydra's config of a sweep
submitted.py        the launchers of submitit, also for Slurm
task_context.py     `vary` and `launch` for tasks
completion.py       completion of the command line in a shell
help.py             `--help` and `--version`
"""
