"""Components of Clara's time that MONAI no longer has and no rule can translate."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "ComputeMeanDice": "Use the metric MeanDice.",
        "LoadNiftid": "Use LoadImaged, which reads all formats.",
        "LoadNumpyd": "Use LoadImaged, which reads all formats.",
        "LoadPNGd": "Use LoadImaged, which reads all formats.",
        "PatchWSIDataset": "Today's cuts no grid and takes other arguments: cut the patches "
        "beforehand and use CacheDataset, or name today's by path, monai.data.PatchWSIDataset, "
        "with patch_size and patch_level.",
        "SmartCachePatchWSIDataset": "Cut the patches beforehand and use SmartCacheDataset.",
        "MaskedInferenceWSIDataset": "Its successor takes other arguments; name it by path, "
        "monai.data.MaskedPatchWSIDataset, with patch_size, patch_level and mask_level.",
        "CSVDataset": "Only src, a single file, and transform are translated; use Dataset with "
        "data_list_file_path in its place.",
        "TransformInverter": "Only its usual arguments are translated; use the post transform "
        "Invertd in its place.",
        "SegmentationSaver": "Only its usual arguments, and an output_transform that takes one "
        "key, are translated; use the post transform SaveImaged in its place.",
    }
)
"""Short name -> advice."""

REMOVED_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"monai.data.PatchWSIDataset": ("region_size", "grid_shape", "image_reader_name")}
)
"""Classes that ignore, without a word, arguments that they once had."""

REQUIRED_ARGUMENTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("CacheNTransDataset", "cache_dir"): "Name a folder for what it stores, such as "
        '"{MMAR_ROOT}/cache".',
        ("PersistentDataset", "cache_dir"): "Name a folder for what it stores, such as "
        '"{MMAR_ROOT}/cache".',
    }
)
"""Class and argument that was optional in Clara's time -> advice."""
