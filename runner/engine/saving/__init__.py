"""The run folder, its checkpoints, and all durable writes.

- `folder.py`, `locking.py`: the run folder, `result.json`, the lock
- `held.py`: the locks that this process holds, which each write checks
- `evidence.py`: how a run stands, by the evidence in its folder
- `checkpoint.py`, `commit.py`: save and load checkpoints
- `cadence.py`, `held_weights.py`: when checkpoints are saved, and the best weights in memory until then
- `manifest.py`: the file that commits a checkpoint, with sizes and checksums
- `keep.py`: what a finished run leaves of them
- `rotation.py`: removal of old checkpoints and of files that killed saves left
- `state.py`: nested state as named tensors and a JSON tree
- `ensemble_file.py`: `ensemble.json`, the members of an ensemble and how their predictions are combined
- `tensor_file.py`: safetensors files, written durably and verified when read
- `storage.py`: atomic writes and safe reads
- `disk.py`: the system calls that change a disk, which tests replace
"""
