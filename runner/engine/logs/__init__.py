"""The logs of a run: rows of values for files and the terminal.

A value travels `Log.add` -> `Buffer` -> `Transfer` (one device-to-host copy) -> `Log.flush` -> `LogFiles` -> its sinks.

- `log.py`: the log of a run, `open_logs`
- `derived.py`: moving average of the loss, best scores
- `buffer.py`: values on the device and their copy to the host, which several logs can share
- `files.py`: log files that continue after a full disk and are truncated to a checkpoint
- `sinks.py`: rows, the protocols of sinks, the append-only file, `metrics.jsonl`
- `event_file.py`: TensorBoard's event file
- `board_tags.py`: the tags of the event file, in the order in which TensorBoard shows them
- `tfrecords.py`: the records of an event file, with their checksums
- `summaries.py`: histograms, images and texts for TensorBoard
- `plugin_pages.py`: TensorBoard's HPARAMS and CUSTOM SCALARS pages
- `console.py`: the progress line and bar
- `progress_line.py`: their text
- `notebook_bar.py`: the progress bar in a notebook
"""
