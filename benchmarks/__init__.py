"""Benchmarks of runner against hand-written loops and other frameworks.

Every figure is a ratio within one run, with n, median and spread. `python -m benchmarks` measures the targets.

    __main__    command line of all targets
    targets     claims, their bounds, and results
    slices      groups of targets that are measured together
    contest     training loops of several processes that take turns
    rounds      rounds, ratios and their spread
    work        tensors, initial weights and optimizer that all loops share; their turns
    experiments configs of the benchmarks
    report      JSON file, Markdown table, description of the machine
    chart       bar chart of the results
    child_process  processes that measure and answer
    peers/      the loops of other frameworks, one file each
    step        time of a training step; two settings compared
    probes      cost of probes per step
    ablation    cost of a feature; the check for non-finite numbers
    start_up    time from the command to the second step
    read_ahead  gain of reading files ahead
    loader      images per second of the data pipeline
    event_log   time per logged scalar
    memory      peak memory of the training loop
    speedrun    the CIFAR-10 speed run
    threads     time of whole runs by the number of CPU threads
    sweep       time per trial of a sweep
    search      quality of hyperparameter search
    compare     time of comparisons and searches by their size
    accuracy    test accuracies of optimizers and of ResNet-20
    peers_reliability  Lightning under runner's reliability tests
"""
