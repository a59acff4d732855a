"""The protocol: steps with gates that show whether a training can work, before it runs for long.

outcome.py        what a step returns: criteria with numbers, advice, a status
context.py        what a step gets, and the budget of all steps
expected_loss.py  the loss of an untrained model in closed form, for each loss of the catalogue
initial_loss.py   the measured initial loss, and its criteria
preflight.py      checks of an untrained model: inputs, gradients, batch independence, optimizer
leaks.py          equal examples in the training and the validation split
plain_config.py   the config without regularization and augmentation
check_init.py     step 1: the initial loss
subset.py         a small sample, and what a model is on it
fit_diagnosis.py  what the end of a fit to a small sample means
overfit.py        step 2: fit a small sample
lr_scores.py      scores of learning rates, the choice among them, and suggestions of a range test
lr_range.py       a range test
lr_words.py       the outcome of step 3 in words
find_lr.py        step 3: learning rates that make the loss go down
trials.py         trainings of steps 4 and 5, and their scores
coarse_grid.py    points of the coarse search
coarse_words.py   its outcome in words
coarse.py         step 4: a coarse search over learning rate and weight decay
refine_space.py   ranges around candidates
refine_words.py   the winner against the incumbent
refine.py         step 5: a refining search around the candidates
check_curves.py   step 6: the run doctor on the trainings of the searches
trial_figures.py  scores against hyperparameters
steps.py          runs steps in order: keys, state, handoff
recipe.py         the recipe at the end
report.py         the report: terminal, Markdown, HTML
figures.py        its figures
"""
