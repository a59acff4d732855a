"""The flat form of a config, and which parts of it count as hyperparameters."""

from runner.engine.logs.plugin_pages import flat_hparams, session_end, session_start
from runner.keys import hyperparameters

CONFIG = {
    "data": {"name": "imagefolder", "root": "/data", "workers": 4, "batch_size": 128},
    "optim": {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "amsgrad": False, "weight_decay": None},
    "scheduler": {"name": "step", "at": {"first": 1, "second": 2}, "empty": []},
    "augment": {"crop": {"padding": 4}, "flip": {}},
    "regularizer": {},
    "probe": {"images": {"every": 500}},
    "task": {"name": "train", "figures": True},
    "epochs": 20,
    "precision": "bf16",
    "seed": 3,
    "outputs": "outputs",
    "name": None,
    "sweep": None,
    "resume": None,
    "run": None,
    "note": "why?",
    "plugins": [],
    "device": "cuda",
    "log_every": 50,
}


def test_a_config_becomes_one_level_of_numbers_truths_and_words():
    assert flat_hparams(hyperparameters(CONFIG)) == {
        "data": "imagefolder",
        "data.batch_size": 128.0,
        "optim": "adam",
        "optim.lr": 1e-3,
        "optim.betas": "0.9+0.999",
        "optim.amsgrad": False,
        "optim.weight_decay": "none",
        "scheduler": "step",
        "scheduler.at.first": 1.0,
        "scheduler.at.second": 2.0,
        "scheduler.empty": "none",
        "augment": "crop+flip",
        "augment.crop.padding": 4.0,
        "regularizer": "none",
        "epochs": 20.0,
        "precision": "bf16",
    }


def test_the_types_are_those_that_tensorboard_tells_apart():
    assert {type(value) for value in flat_hparams(hyperparameters(CONFIG)).values()} == {bool, float, str}


def test_seeds_and_places_do_not_tell_runs_apart():
    moved = {**CONFIG, "seed": 4, "outputs": "/elsewhere", "device": "cpu", "data": {**CONFIG["data"], "root": "x"}}
    assert flat_hparams(hyperparameters(moved)) == flat_hparams(hyperparameters(CONFIG))


def split_summary(summary):
    """Return a summary without its plugin's content, and that content as a message (a map has no order)."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (value,) = summary.value
    content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    value.metadata.plugin_data.content = b""
    return value, content


def test_a_session_is_told_in_the_words_of_tensorboards_own_api(monkeypatch):
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    monkeypatch.setattr("time.time", lambda: 12.5)
    hparams = flat_hparams(hyperparameters(CONFIG))
    assert split_summary(session_start(hparams, "group")) == split_summary(
        hparams_pb(hparams, trial_id="group", start_time_secs=12.5)
    )
    for succeeded, status in ((True, api_pb2.STATUS_SUCCESS), (False, api_pb2.STATUS_FAILURE)):
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=12.5)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        assert split_summary(session_end(succeeded=succeeded)) == split_summary(Summary(value=[value]))
