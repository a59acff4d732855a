"""The engine: trains, evaluates, probes, logs and saves; knows no option names and no config.

- `train.py`: the training loop
- `recipe.py`, `learner.py`: what stays fixed in a run, and what changes
- `clock.py`: the length of a run
- `contracts.py`: the types and protocols of components
- `batches.py`, `loading.py`, `transfer.py`, `read_ahead.py`: data, from files to batches on the device
- `forward.py`, `clipping.py`, `fast_step.py`, `fused_step.py`: forward pass, gradient clipping, optimizer step
- `finite.py`, `nonfinite_trace.py`: the check that all is finite, and the search for what is not
- `losses.py`, `views.py`, `metrics.py`: the forms of a loss, predictions, means over views, and metrics of a split
- `combining.py`: combined log-probabilities of several models
- `recalibration.py`: BatchNorm statistics of averaged weights
- `evaluation.py`, `monitor.py`, `patience.py`: scores, the monitored score, early stopping
- `schedules.py`, `ramps.py`: what follows from the step: learning rates, freezing, drop rates that grow
- `parts.py`, `randomness.py`: parts of models, random keys
- `stage_inputs.py`: the features of a model's stages
- `distillation.py`, `similarity.py`: losses that compare a model with its teacher: logits, features
- `weights.py`, `parametrized.py`: the weights of layers, and how they are read and written
- `probing.py`, `activations.py`, `timing.py`: measurements
- `short_run.py`, `free_memory.py`: a short training without a folder, the free memory of the machine
- `state_dict.py`: tensors of modules, with the versions of their layout
- `interruption.py`, `garbage.py`: signals, garbage collection
- `provenance.py`, `user_code.py`: versions of code and machine, digests of the user's modules
- `processes.py`, `private_descriptors.py`: what a process started and how it ends; descriptors that forks do not get
- `world.py`: the processes that train together
- `logs/`, `saving/`, `figures/`: logs, run folders and checkpoints, figures
- `invariants/`: what must hold in the first steps of every run
"""
