"""Arguments of MONAI's earlier releases that its classes no longer take, and defaults that changed.

Taken from the deprecation records of MONAI 0.6 to 1.5 and from their signatures. The installed
release no longer has these records; ``generate_component_table.py`` adds the records that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LATENT = (
    *("AutoencoderKL", "ControlNet", "DiffusionModelUNet", "MultiScalePatchDiscriminator"),
    *("PatchDiscriminator", "SPADEAutoencoderKL", "SPADEDiffusionModelUNet", "VQVAE"),
)
_ENGINES = ("SupervisedTrainer", "GanTrainer", "SupervisedEvaluator", "EnsembleEvaluator")

RENAMED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("ce_weight", "weight"): ("DiceCELoss",),
    ("focal_weight", "weight"): ("DiceFocalLoss", "GeneralizedDiceFocalLoss"),
    ("n_classes", "num_classes"): ("ResNet", "NetAdapter", "TorchVisionFCModel"),
    ("ndim", "spatial_dims"): ("LocalNormalizedCrossCorrelationLoss",),
    ("num_channels", "channels"): _LATENT,  # the package `generative`, before MONAI took it in
    ("pos_embed", "proj_type"): ("UNETR", "ViT", "ViTAutoEnc"),
    ("post_transform", "postprocessing"): _ENGINES,
    ("spatial_channels", "spatial_dims"): ("AddCoordinateChannelsd",),
    ("use_addictive_sampling", "use_additive_sampling"): ("LocalNet",),
    ("use_checkpointing", "use_checkpoint"): ("AutoencoderKL",),
}
"""Old and new name -> the classes that renamed the argument without a change of meaning."""

_METRICS = ("MeanDice", "ROCAUC", "HausdorffDistance", "SurfaceDistance", "ConfusionMatrix")
_OWN_META = (
    *("Spacingd", "Orientationd", "EnsureChannelFirstd", "RandSpatialCropSamplesd"),
    *("RandWeightedCropd", "RandCropByPosNegLabeld", "RandCropByLabelClassesd", "SpatialResampled"),
)
_OWN_TYPE = (
    *("Affined", "RandAffined", "Rand2DElasticd", "Rand3DElasticd", "GibbsNoised"),
    *("RandGibbsNoised", "KSpaceSpikeNoised", "RandKSpaceSpikeNoised"),
)

DROPPED: Mapping[str, tuple[str, ...]] = {
    "img_size": ("SwinUNETR",),  # takes images of any size
    "device": _METRICS,  # compute where the images are
    "meta_keys": _OWN_META,  # an image carries its metadata itself
    "meta_key_postfix": _OWN_META,
    "as_tensor_output": _OWN_TYPE,  # images are tensors throughout
    "num_workers": ("Invertd",),  # transforms are inverted one by one
    "reduction": ("ContrastiveLoss",),  # was ignored before
    "save_batch": ("SaveImaged",),  # sees one case after the other
}
"""Argument -> the classes that do the same without it."""

CLARA_DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("CropForegroundd", "allow_smaller"): True,
    ("RandScaleCropd", "random_size"): True,
    ("RandSpatialCropd", "random_size"): True,
    ("RandSpatialCropSamplesd", "random_size"): True,
    ("SaveImaged", "resample"): True,
}
"""Class and argument -> the default in Clara's time, where another one changes images."""

CLARA_4_0_DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("DenseNet264", "block_config"): [6, 12, 48, 32],
    ("DynUNet", "norm_name"): "instance",
    ("RandBiasFieldd", "prob"): 1.0,
}
"""The same for Clara 4.0 alone, whose MONAI was older than that of 4.1."""
