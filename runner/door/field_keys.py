"""The keys of Keras, fastai, timm, Lightning and Hugging Face, and what to type for them here.

`suggestions.py` reads the tables, and a test types every suggestion. Case, `_` and `-` in a key do not matter.
"""

from __future__ import annotations

from functools import cache

from runner.field_words import normalized
from runner.out_of_scope import MULTI_LABEL, ONE_KIND, REGRESSION

# Keys of others -> overrides here. `{}` is the value; `true: ` and the like take the overrides for this value alone.
# The first overrides that are right for the value count.
_KEYS: dict[str, tuple[str, ...]] = {
    # Groups
    "optimizer optimiser opt optim_name solver optimizer_name": ("optim={}",),
    "lr_scheduler sched schedule lr_schedule lr_policy scheduler_name lrs lr_scheduler_type": ("scheduler={}",),
    "dataset datamodule dm data_name dataset_name": ("data={}",),
    "net network backbone architecture arch model_name encoder model_type module": ("model={}",),
    "criterion loss_fn loss_function objective loss_name": ("loss={}",),
    "act nonlinearity activation_fn act_layer activation_function nonlin hidden_act": ("activation={}",),
    "normalization norm_layer norm_type normalisation": ("norm={}",),
    "initializer weight_init init_method kernel_initializer initialization initialisation": ("init={}",),
    "augmentation augmentations transforms transform aug augs data_augmentation train_transforms batch_tfms item_tfms "
    "aa auto_augment": ("false: augment=[]", "augment={}", "augment=[{}]"),
    "regularization regularisation reg regularizers": ("regularizer={}", "regularizer=[{}]"),
    "experiment exp hparams_search": ("recipe={}",),
    "preprocessing normalize standardize": ("true: preprocess=standardize", "false: preprocess=none", "preprocess={}"),
    "pretrained use_pretrained": ("true: init_from=IMAGENET1K_V1", "false: init_from=null", "init_from={}"),
    "weights pretrained_weights load_weights weights_path model_weights checkpoint init_checkpoint initial_checkpoint "
    "finetune_from from_pretrained pretrained_path": (
        "imagenet: init_from=IMAGENET1K_V1",
        "false: init_from=null",
        "init_from={}",
    ),
    "target target_column target_col label_column label_col y_column": ("data.label={}",),
    # Optimizer and schedule
    "learning_rate base_lr init_lr initial_lr lr0 eta initial_learning_rate start_lr": ("optim.lr={}",),
    "wd l2_penalty l2_reg weight_decay_rate": ("optim.weight_decay={}",),
    "momentum": ("optim.momentum={}", "optim=momentum optim.momentum={}"),
    "nesterov": ("true: optim=nesterov", "false: optim=momentum"),
    "beta betas adam_betas": ("optim.betas={}", "optim=adam optim.betas={}"),
    "eps epsilon adam_epsilon opt_eps": ("optim.eps={}", "optim=adam optim.eps={}"),
    "warmup_epochs warmup_epoch lr_warmup_epochs num_warmup_epochs": ("scheduler.warmup={}epochs",),
    "warmup_steps num_warmup_steps warmup_iters warmup_iterations": ("scheduler.warmup={}steps",),
    "min_lr_ratio eta_min_ratio final_lr_ratio end_factor": ("scheduler.final={}",),
    "grad_clip gradient_clip_val clip_grad max_grad_norm clip_grad_norm clipnorm gradient_clip gradient_clipping "
    "grad_clip_norm global_clipnorm max_norm clip_gradients": ("false: clip=null", "0: clip=null", "clip={}"),
    "clip_value clip_grad_value gradient_clip_value": ("clip={} clip_by=value",),
    "agc adaptive_clip adaptive_gradient_clipping agc_clip clip_factor": (
        "true: clip=0.01 clip_by=agc",
        "clip={} clip_by=agc",
    ),
    "sam use_sam sam_rho": ("true: update=sam", "false: update=plain", "update=sam update.rho={}"),
    "clip_mode gradient_clip_algorithm": ("clip=1.0 clip_by={}",),
    "accumulate_grad_batches gradient_accumulation_steps grad_accum accum_iter accumulation_steps grad_accum_steps "
    "accum grad_accumulation accumulation": ("accumulate={}",),
    # Length and data
    "max_epochs num_epochs n_epochs n_epoch nb_epochs num_train_epochs train_epochs total_epochs ep max_epoch n_ep": (
        "epochs={}",
    ),
    "max_steps num_steps iterations max_iter max_iters n_iter num_iterations total_steps train_steps iters "
    "num_iters n_steps": ("steps={}",),
    "fast_dev_run": ("true: steps=1", "steps={}"),
    "bs batch batchsize train_batch_size per_device_train_batch_size batch_size_train mini_batch_size train_bs "
    "batch_sz samples_per_gpu": ("data.batch_size={}",),
    "num_workers workers dataloader_num_workers n_workers loader_workers num_worker": ("data.workers={}",),
    "data_dir data_root dataset_path data_path dataset_dir root_dir train_dir": ("data.root={}",),
    "image_size img_size input_size imgsz image_dim resolution": ("data.size={}", "data.size=[{},{}]"),
    "aug_repeats repeated_aug ra_repeats repeated_augmentation": ("augment_repeats={}",),
    "shuffle": ("true: data.sampling=shuffle",),
    "limit limit_train_batches subset subset_size n_samples max_samples max_train_samples": ("data.limit={}",),
    "val_split validation_split val_fraction valid_pct": ("data.val_fraction={}",),
    "class_weight class_weights": ("loss.class_weights={}",),
    # Regularization
    "dropout drop drop_rate dropout_rate p_drop dropout_p dropout_prob drop_prob hidden_dropout_prob": (
        "true: regularizer=[dropout]",
        "false: regularizer=[]",
        "0: regularizer=[]",
        "0.0: regularizer=[]",
        "regularizer=[dropout] regularizer.dropout.p={}",
    ),
    "drop_path drop_path_rate stochastic_depth stochastic_depth_prob": (
        "true: regularizer=[stochastic_depth]",
        "regularizer=[stochastic_depth] regularizer.stochastic_depth.p={}",
    ),
    "smoothing label_smooth ls label_smoothing_factor label_smoothing": (
        "loss.label_smoothing={}",
        "loss=cross_entropy loss.label_smoothing={}",
    ),
    "mixup mixup_alpha use_mixup": ("true: mix=mixup", "false: mix=none", "0: mix=none", "mix=mixup mix.alpha={}"),
    "cutmix cutmix_alpha use_cutmix": ("true: mix=cutmix", "false: mix=none", "0: mix=none", "mix=cutmix mix.alpha={}"),
    "mixup_off_epoch mixup_off": ("mix=mixup mix.until={}epochs",),
    "ema model_ema use_ema ema_decay model_ema_decay moving_average": (
        "true: average=ema",
        "false: average=none",
        "average=ema average.decay={}",
    ),
    "swa use_swa": ("true: average=swa", "false: average=none", "average=swa average.start={}"),
    "early_stopping early_stop es use_early_stopping early_stopping_patience es_patience "
    "early_stopping_rounds early_stop_patience": ("true: patience=5", "false: patience=null", "patience={}"),
    "bn batch_norm use_bn use_batchnorm with_bn": ("true: norm=batch", "false: norm=none"),
    "ln layer_norm use_ln use_layernorm": ("true: norm=layer", "false: norm=none"),
    "gn group_norm": ("true: norm=group", "false: norm=none"),
    "tta test_time_augmentation": ("true: predict=tta", "false: predict=plain"),
    # How it is computed
    "gpus gpu num_gpus n_gpus ngpu": ("true: device=cuda", "false: device=cpu", "1: device=cuda"),
    "gpu_id cuda_device gpu_ids": ("device=cuda:{}",),
    "cuda use_cuda use_gpu": ("true: device=cuda", "false: device=cpu"),
    "no_cuda use_cpu cpu": ("true: device=cpu", "false: device=cuda"),
    "accelerator trainer dev": ("device={}",),
    "devices": ("1: device=cuda", "device={}"),
    "amp use_amp mixed_precision fp16 half float16 use_fp16": (
        "true: precision=fp16",
        "false: precision=fp32",
        "precision={}",
    ),
    "bf16 bfloat16 use_bf16": ("true: precision=bf16", "false: precision=fp32"),
    "dtype": ("precision={}",),
    "torch_compile use_compile jit": ("compile={}",),
    "channels_last": ("true: memory_format=channels_last", "false: memory_format=contiguous"),
    "num_threads n_threads torch_threads": ("threads={}",),
    "seed_everything random_seed random_state manual_seed rng_seed rng": ("seed={}",),
    # What is written, and when
    "output_dir out_dir log_dir save_dir default_root_dir work_dir output root_folder": ("outputs={}",),
    "exp_name experiment_name run_name task_name jobname": ("name={}",),
    "ckpt_path resume_from_checkpoint resume_from ckpt load_checkpoint resume_path": ("resume={}",),
    "tags description comment notes desc": ("note={}",),
    "log_every_n_steps log_interval logging_steps print_freq log_freq log_steps": ("log_every={}",),
    "check_val_every_n_epoch eval_every_n_epochs validate_every_n_epochs validation_freq": ("validate_every={}epochs",),
    "eval_steps": ("validate_every={}steps",),
    "eval_every val_every eval_interval val_interval eval_freq val_check_interval eval_period validate": (
        "validate_every={}",
    ),
    "save_steps": ("checkpoint_every={}steps",),
    "every_n_epochs save_every_n_epochs": ("checkpoint_every={}epochs",),
    "save_every save_freq save_interval ckpt_every ckpt_interval checkpoint_interval": ("checkpoint_every={}",),
    "monitor_metric early_stopping_metric metric_for_best_model best_metric": ("monitor={}",),
}
# Keys of others for which there is nothing to set
_NOTES: dict[str, str] = {
    "num_classes n_classes nb_classes num_labels n_class out_features": "the data set says how many classes there are",
    "in_channels input_shape input_dim in_features in_chans img_channels input_channels n_channels": "the data set "
    "says what shape its images have",
    "multi_label is_multilabel": MULTI_LABEL,
    "regression is_regression": REGRESSION,
    "problem_type task_type": ONE_KIND,
    "finetune finetuning": "recipe=finetune init_from=<run or file> starts from its weights",
    "freeze freeze_backbone freeze_base freeze_encoder freeze_features freeze_layers freeze_at freeze_bn freeze_epochs "
    "frozen frozen_stages unfreeze unfreeze_at_epoch trainable trainable_layers requires_grad": "transfer= "
    "freezes what init_from loaded; a rule freezes tensors by their names: "
    "\"optim.rules=[{match:'hidden.*',active:[100%,null]}]\"",
    "seeds n_seeds num_seeds repeats n_repeats num_repeats repetitions": "a sweep repeats a run: -m 'seed=range(0,5)'",
    "logger loggers report_to log_to": "TensorBoard is always written, and tracker=[csv] and the like beside it",
    "pin_memory persistent_workers prefetch_factor non_blocking": "the loader chooses this for the device",
    "strategy ddp distributed num_nodes nproc_per_node local_rank world_size fsdp deepspeed": "a run uses one device; "
    "a sweep (-m) uses all",
    "t_max total_iters decay_steps": "a schedule spans the run: epochs or steps",
    "n_trials num_trials": "belongs to a search: -m hydra/sweeper=optuna hydra.sweeper.n_trials=20 and what to search",
    "callbacks callback cbs": "callbacks are settings here: patience, checkpoint_every, average, scheduler, probe",
}


def templates_for(word: str) -> tuple[str, ...]:
    """Return the overrides for a key of others as templates, none if the table does not have it."""
    return _index()[0].get(normalized(word), ())


def note_on(word: str) -> str:
    """Return why there is nothing to set for a key of others, empty if the table does not have it."""
    return _index()[1].get(normalized(word), "")


def all_keys() -> list[str]:
    """Return every key of others that has templates."""
    return [word for words in _KEYS for word in words.split()]


@cache
def _index() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the templates and the notes by normalized key."""
    found = {normalized(word): templates for words, templates in _KEYS.items() for word in words.split()}
    return found, {normalized(word): note for words, note in _NOTES.items() for word in words.split()}
