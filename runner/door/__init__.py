"""The front door: a command line becomes a checked config, or one line that says what is wrong with it; no torch.

arguments.py        the flags
overrides.py        the overrides, parsed with Hydra's grammar
options.py          the config folders: groups, options, YAML files
check_files.py      checks of a user's config files before Hydra reads them
compose.py          from overrides to one checked config
check.py            the check of a whole config
annotations.py      the types of the components' knobs, read from their source
variants.py         many configs that differ in a few places; `vary`
naming.py           names and hashes
jobs.py             the jobs that tasks start with
plan.py             a sweep planned
grid.py             every combination of listed values
plan_search.py      a search planned
search_space.py     the space of a search
search_settings.py  the settings of a search
command.py          what a command line starts
sweep.py            a planned sweep run
resume_sweep.py     `resume=<sweep folder>`
hydra_launchers.py  Hydra's launchers, `--info` and shell completion
task_context.py     `vary` and `launch` for tasks
help.py             `--help` and `--version`
"""
