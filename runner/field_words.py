"""The words of Keras, PyTorch, fastai, timm, Lightning and Hugging Face, and what they are called here.

An error line suggests from these tables before it compares spelling. Each entry is what to type here, with the words of
others for it, whatever their case, `_` and `-`. The entry `-` has words for what is not here, and nothing like them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from runner.network_names import network_words

_Words = Mapping[str, str]

NOT_HERE = "-"
_NONE = "none null false off no disabled"
# What is an option of a group, or a word that a setting can be; a whole override where it belongs to another key
_VALUES: dict[str, _Words] = {
    "activation": {
        "identity": f"{_NONE} linear id",
        "silu": "swish swish1",
        "relu": "rectifier rectified_linear",
        "leaky_relu": "lrelu",
        "hardswish": "hswish",
        "sigmoid": "logistic",
        "gelu": "gelu_new gelu_tanh quick_gelu",
        "-": "mish relu6 celu glu geglu swiglu softmax log_softmax softsign hardtanh hard_sigmoid rrelu",
    },
    "augment": {
        "[]": f"{_NONE} identity",
        "hflip": "flip horizontal_flip random_horizontal_flip fliplr lr_flip mirror",
        "vflip": "vertical_flip random_vertical_flip flipud",
        "crop": "random_crop pad_crop shift_crop",
        "resized_crop": "random_resized_crop rrc random_size_crop",
        "rotate": "rotation random_rotation random_rotate",
        "translate": "translation shift random_translation",
        "shear": "random_shear",
        "color_jitter": "color colour jitter colour_jitter brightness contrast",
        "random_erasing": "erasing erase random_erase",
        "cutout": "coarse_dropout",
        "perspective": "random_perspective",
        "randaugment": "ra rand_aug random_augment",
        "trivialaugment": "ta trivial_augment_wide ta_wide",
        "autoaugment": "aa auto_aug",
        "blur": "gaussian_blur random_blur",
        "grayscale": "random_grayscale gray grey greyscale to_gray",
        "solarize": "random_solarize",
        "posterize": "random_posterize",
        "equalize": "random_equalize",
        "'augment=[color_jitter] augment.color_jitter.hue=0.1'": "hue",
        "mix=mixup": "mixup",
        "mix=cutmix": "cutmix",
        "preprocess=standardize": "normalize standardize normalization",
        "-": "affine random_affine zoom augly",
    },
    "average": {
        "none": "null false off no disabled",
        "ema": "exponential exponential_moving_average model_ema moving_average ewma true",
        "swa": "stochastic_weight_averaging stochastic_weight_average",
        "polyak": "polyak_ruppert asgd",
    },
    "data": {
        "cifar10": "cifar",
        "fashion_mnist": "fmnist fashion",
        "imagefolder": "folder image_dataset imagenet imagenette imagewoof tiny_imagenet images",
        "table": "csv parquet tabular dataframe",
        "arrays": "numpy npz npy array tensor_dataset",
        "synthetic": "fake fake_data toy moons spirals",
        "-": "kmnist emnist qmnist stl10 usps omniglot flowers102 caltech101 food101 places365 celeba",
    },
    "init": {
        "kaiming": "he he_normal he_uniform kaiming_normal kaiming_uniform msra",
        "xavier": "glorot glorot_normal glorot_uniform xavier_normal xavier_uniform",
        "lecun": "lecun_normal lecun_uniform",
        "torch_default": "default pytorch torch none null",
        "normal": "gaussian random_normal",
        "zeros": "zero",
        "'init=constant init.value=1.0'": "ones one",
        "-": "uniform random_uniform truncated_normal trunc_normal fixup identity sparse",
    },
    "loss": {
        "cross_entropy": "ce cross_entropy_loss ce_loss xent softmax softmax_cross_entropy nll nll_loss "
        "logloss categorical_crossentropy sparse_categorical_crossentropy",
        "bce": "binary_crossentropy bce_with_logits bce_with_logits_loss bce_loss sigmoid_cross_entropy",
        "focal": "focal_loss sigmoid_focal_loss",
        "poly": "poly1 polyloss poly1_loss poly1_cross_entropy",
        "mse": "l2 mse_loss mean_squared_error squared_error",
        "hinge": "svm multi_margin multi_margin_loss hinge_loss categorical_hinge",
        "'loss=cross_entropy loss.label_smoothing=0.1'": "label_smoothing label_smoothing_cross_entropy smoothing ls",
        "-": "mae l1 l1_loss huber smooth_l1 smooth_l1_loss kl kl_div dice iou ctc triplet contrastive arcface asl "
        "rmse",
    },
    "mix": {
        "none": "null false off no disabled",
        "mixup": "true",
        "mixup_or_cutmix": "both cutmixup mixup_cutmix cutmix_mixup cutmix_or_mixup",
        "-": "manifold_mixup fmix puzzlemix snapmix",
    },
    "model": {
        "mlp": "dense fc feed_forward fully_connected nn multilayer_perceptron dnn",
        "cnn": "convnet conv simple_cnn",
        "linear": "logistic_regression logreg softmax_regression logistic",
        "vit": "transformer vision_transformer",
        "wide_resnet": "wrn",
        "-": "lenet lenet5 rnn lstm gru bert gpt gpt2 unet yolo",
    },
    "norm": {
        "none": "null false off no identity disabled",
        "batch": "bn batchnorm batchnorm2d batch_normalization batchnorm1d true",
        "layer": "ln layernorm layer_normalization layernorm2d",
        "group": "gn groupnorm group_normalization",
        "instance": "in instancenorm instancenorm2d instance_normalization",
        "rms": "rmsnorm rmsnorm2d",
        "sync_batch": "syncbn sync_batchnorm synchronized_batchnorm",
        "'norm=group regularizer=[weight_standardization]'": "weight_standardization weight_standardisation ws",
        "-": "weight weight_norm spectral spectral_norm frn evonorm",
    },
    "optim": {
        "momentum": "sgd_momentum sgdm momentum_sgd sgd_with_momentum heavy_ball",
        "nesterov": "nag sgd_nesterov nesterov_sgd sgd_nag",
        "adam": "fused_adam",
        "adamw": "adamw_torch adamw_torch_fused fused_adamw adamw_hf",
        "rmsprop": "rmsprop_tf rms",
        "schedulefree": "adamw_schedule_free schedule_free_adamw",
        "schedulefree_sgd": "sgd_schedule_free",
        "'optim=adam optim.amsgrad=true'": "amsgrad adam_amsgrad",
        "-": "adadelta lars shampoo sophia adan lbfgs prodigy adabelief adamp sgdp novograd soap "
        "ranger sparse_adam rprop ftrl dadapt",
    },
    "predict": {
        "plain": "none null false off no disabled single",
        "tta": "test_time_augmentation true",
        "mc_dropout": "monte_carlo_dropout mcd dropout",
        "ten_crop": "10crop ten_crops",
    },
    "preprocess": {
        "none": "null false off no identity disabled raw",
        "standardize": "normalize standardise normalise zscore standard mean_std normalization standard_scaler",
        "scale01": "minmax rescale to_tensor rescaling unit",
        "zca": "zca_whitening zca_whiten",
        "pca_whiten": "pca_whitening whiten whitening",
        "channel_mean": "mean center centre mean_subtraction",
    },
    "probe": {
        "[]": _NONE,
        "confusion": "confusion_matrix",
        "histograms": "histogram weight_histograms weights",
        "gradients": "gradient gradient_histograms",
        "grad_norm": "gradient_norm",
        "memory": "gpu gpu_memory",
    },
    "regularizer": {
        "[]": _NONE,
        "stochastic_depth": "drop_path dropout_path layer_drop",
        "dropblock": "block_dropout",
        "weight_standardization": "ws weight_standardisation std_conv",
        "alpha_dropout": "selu_dropout",
        "l1": "lasso l1_norm",
        "l2": "ridge l2_norm",
        "elastic_net": "l1_l2 elastic",
        "max_norm": "max_norm_constraint",
        "optim.weight_decay=0.0005": "weight_decay wd",
        "'loss=cross_entropy loss.label_smoothing=0.1'": "label_smoothing smoothing",
        "patience=5": "early_stopping",
        "mix=mixup": "mixup",
        "mix=cutmix": "cutmix",
        "augment=[cutout]": "cutout",
        "dropout2d": "spatial_dropout channel_dropout",
        "-": "shakedrop shake_shake gaussian_noise rdrop",
    },
    "scheduler": {
        "constant": "none null false off no fixed flat constant_lr constant_with_warmup disabled",
        "cosine": "cos cosine_annealing cosine_annealing_lr cosine_decay cosine_lr cosine_with_warmup cosine_warmup",
        "cosine_restarts": "sgdr cosine_annealing_warm_restarts warm_restarts cosine_with_restarts",
        "step": "step_lr step_decay",
        "multistep": "multi_step_lr piecewise_constant piecewise piecewise_constant_decay",
        "exponential": "exp exponential_lr exponential_decay",
        "polynomial": "poly polynomial_lr polynomial_decay poly_lr",
        "plateau": "reduce_lr_on_plateau reduce_on_plateau plateau_lr",
        "onecycle": "one_cycle_lr 1cycle one_cycle_policy fit_one_cycle",
        "cyclic": "cyclic_lr clr",
        "linear": "linear_lr linear_decay linear_with_warmup linear_warmup",
        "inverse_sqrt": "noam rsqrt inverse_square_root inv_sqrt",
        "wsd": "warmup_stable_decay trapezoidal trapezoid hold_then_decay",
        "-": "tanh cosine_annealing_with_hard_restarts lambda lambda_lr warmup",
    },
    "task": {
        "evaluate": "test eval evaluation validate val validation score",
        "train": "fit training run learn",
        "predict": "inference infer prediction",
        "list": "help options show",
        "profile": "benchmark bench speed profiler",
        "compare": "comparison report",
        "preview": "summary visualize visualise plot inspect",
        "-": "tune sweep search hpo deploy serve",
    },
    "distillation": {"none": "null false off no disabled", "logits": "kd hinton knowledge_distillation"},
    "transfer": {
        "feature_extraction": "freeze frozen freeze_backbone linear_probe linear_probing feature_extractor",
        "-": "lora adapter adapters peft",
    },
    "update": {"plain": f"{_NONE} standard", "sam": "sharpness_aware", "'update=sam update.adaptive=true'": "asam"},
    "tracker": {"[]": _NONE, "wandb": "weights_and_biases", "-": "comet neptune clearml aim trackio"},
    # Settings
    "device": {
        "cuda": "gpu nvidia cuda:gpu",
        "cuda:0": "0 gpu0 cuda0 gpu:0",
        "cuda:1": "1 gpu1 cuda1 gpu:1",
        "mps": "metal apple",
        "-": "tpu xla hpu ipu",
    },
    "precision": {
        "fp32": "32 32_true float32 full single float no f32 tf32",
        "fp16": "16 16_mixed half float16 f16 amp mixed mixed_float16",
        "bf16": "bf16_mixed bfloat16 mixed_bfloat16 b16",
        "pure_bf16": "bf16_true",
        "-": "64 64_true double float64 fp64 fp8 int8",
    },
    "memory_format": {"channels_last": "nhwc", "contiguous": "nchw contiguous_format channels_first"},
    "monitor": {
        "val/accuracy": "val_acc val_accuracy acc accuracy valid_accuracy val/acc accuracy_val eval_accuracy top1 "
        "val_categorical_accuracy val/top1 validation/accuracy",
        "val/loss": "val_loss loss valid_loss loss_val eval_loss validation/loss",
        "val/nll": "nll val_nll",
    },
    "hydra.launcher": {"workers": "n_jobs jobs parallel num_workers processes max_workers", "timeout": "timeout_min"},
    "hydra.sweeper": {"n_trials": "trials max_trials budget n_iter num_samples"},
    "test": {"end": "true always yes", "never": _NONE},
    "figures": {"always": "true yes", "never": _NONE},
}


def value_words(key: str, given: str) -> str | None:
    """Return what a word is here: an option or value, overrides in quotes, `-` for none; None if no table has it."""
    if key == "model" and (network := network_words(given)):
        return network
    return _index(key).get(normalized(given.rpartition(".")[2] if key in ("optim", "loss", "scheduler") else given))


@cache
def _index(key: str) -> dict[str, str]:
    """Return the words of others for the values of a key, with what they are here."""
    return {normalized(word): ours for ours, words in _VALUES.get(key, {}).items() for word in words.split()}


def normalized(word: str) -> str:
    """Return a word without what people write in different ways: case, `_`, `-`, spaces, a call's parentheses."""
    return re.sub(r"[\s_-]|\(\)$", "", word).lower()
