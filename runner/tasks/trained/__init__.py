"""A finished run, or one in progress, restored for use without its data: for scores, predictions, export and Python.

saved_run.py      a run folder: its config, its weights and what they know of their data
read_run.py       the run or the ensemble that `run=` names
members.py        the weights files of a run that can be members of an ensemble
image_inputs.py   images in any form: files, folders, arrays, tensors, Pillow images
trained.py        `Trained`: the model of a run, ready to predict
graphs.py         the model as one file for other programs: torch.export, ONNX, safetensors
"""
