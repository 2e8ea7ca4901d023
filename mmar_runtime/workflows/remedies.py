"""What to do about the commonest errors of PyTorch and MONAI, with the place to do it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mmar_runtime.config.nodes import ComponentSpec, plain
from mmar_runtime.config.sections import Section, WorkflowConfig

REMEDIES: Mapping[str, str] = {
    r"out of memory|can't allocate memory|CUDNN_STATUS_ALLOC_FAILED": "Less at a time needs less "
    "memory: lower {batch_size}, {crop}, or sw_batch_size of the inferer.",
    r"more than 1 (value per channel|spatial element)": "A norm has a single voxel left to compute "
    "with: enlarge {crop}, raise {batch_size}, use fewer strides, or norm 'instance' in {network}.",
    r"stack expects each tensor|collate error|inconsistent tensor size|storage that is not "
    r"resizable": "The cases of a batch "
    "differ in size. Set {batch_size} to 1, or add a crop, ResizeWithPadOrCropd or SpatialPadd.",
    r"(index|target) -?\d+ is out of bounds|device-side assert|class values must be"
    r"|index out of range in self": "A label may hold a class beyond the outputs: compare its "
    "values with {outputs} and to_onehot. 'mmar data check --full' lists the values of all labels.",
    r"channel with length equal to one": "The label has several channels already: leave "
    "to_onehot_y and to_onehot out, or write a label with one number per voxel.",
    r"sizes of tensors must match except in dimension": "The network halves each side and joins "
    "the halves again. Each side has to be divisible by the product of the strides in {network}: "
    "choose such a size for {crop}, or add DivisiblePadd.",
    r"divisible by": "Choose such sides for {crop} and for roi_size, or add DivisiblePadd.",
    r"'(tuple|list)' object has no attribute|dimensions for input and target": "{network} answers "
    "with several outputs while it learns, and {loss} takes one. Leave its argument for that out, "
    "such as deep_supervision, or choose another network.",
    r"suitable writer": "Give output_ext another ending, such as .nii.gz, or install the package "
    "that writes it.",
    r"size of tensor a .* must match|should have same shapes|different shape .* from input"
    r"|target size .* must be the same|shapes? .*(mismatch|do not match)": "{grids}",
    r"to have \d+ channels?, but got": "The image has other channels than in_channels of "
    "{network}. Change that, or check EnsureChannelFirstd and the number of files of an image.",
    r"kernel size can't be greater|smaller than kernel size|output size is too small"
    r"|calculated padded input": "The image "
    "is too small for the network: enlarge {crop}, or use fewer strides in {network}.",
    r"expected scalar type|expected target dtype|but expected \w+|expected floating point type"
    r"|input type .* and (bias|weight)|have the same dtype|not implemented for '": "An image or "
    "label has another type of numbers than expected: add EnsureTyped with dtype for its key.",
    r"dataloader worker .*(killed|exited)|bus error|shared memory": "A process that loads data "
    "has ended. Set {num_workers} to 0 to see its own error; in a container, more shared memory "
    "(--shm-size) may help.",
    r"zero-size array|tensor of 0 elements|non-empty \dd|attempt to get argm|numel\(\) == 0": "A "
    "transform has left no voxel: check CropForegroundd and {crop}, and whether an image is empty.",
    r"no sampling location": "A crop found no voxel to take: look for an image or a label that is "
    "empty or not a number, with 'mmar data check --full'.",
    r"list index out of range": "An axis or a place is named that is not there; both count from 0.",
    r"was missing in the data": "Compare the transform's keys with the entries of the data list.",
    r"only one class|y values can only contain|contains nan": "The metric compares 0 with 1: give "
    "it both classes, by to_onehot for the label, and a list with cases of both.",
    r"output must have length 2": "A metric compares two entries: write output_transform as "
    "#monai.handlers.from_engine(['pred', 'label']).",
    r"must have compatible shapes": "Prediction and label have to be alike: write to_onehot of "
    "AsDiscreted for both, with argmax for the prediction.",
    r"comprised of 0's and 1's": "This metric compares classes: put AsDiscreted with argmax or "
    "threshold on the prediction first.",
    r"at least 3 dimensions \(batch": "This metric compares masks; for one class per case use "
    "Accuracy or ROCAUC.",
    r"expected target size": "CrossEntropyLoss takes a label without a channel: use DiceCELoss "
    "with to_onehot_y, or put SqueezeDimd on 'label' last.",
    r"using a target size": "The loss would repeat the label over the channels of the prediction: "
    "compare {outputs} with the channels of the label.",
    r"unsupported output type: <class 'str'>": "The entry is still the name of a file: put "
    "LoadImaged first.",
    r"label must be provided": "Name the entry that is the label in label_key.",
    r"sequence must have length": "A size has one number for each axis of the images: compare it "
    "with spatial_dims of {network}, and see that EnsureChannelFirstd stands once.",
    r"should be of shape \(batch_size": "This metric compares one value per case; for voxels use "
    "a metric such as MeanDice.",
    r"expected \dd .* input to conv": "Image and network have another number of axes: compare "
    "spatial_dims of {network} with the files.",
    r"dimensions for \dd roi_size": "roi_size of the inferer has another number of axes than the "
    "images: compare it with spatial_dims of {network}.",
    r"mat1 and mat2 shapes": "The network was built for images of one size: compare the sizes in "
    "{network} with {crop}.",
}
"""A part of the text of an error -> what to do; names in braces become places."""

TWO_SHAPES = (
    "Prediction and label have different shapes: compare the transforms of 'image' and 'label', "
    "{outputs} with the channels of the label, and the size of {crop}, which has to be divisible "
    "by the product of the network's strides."
)
INVERTED = (
    "{inverted} brings the prediction back to the grid of the file, and the label stays on the "
    "grid of the network. Add 'label' to its keys, or compute the metric before it."
)


def remedy(text: str, config: WorkflowConfig, section: Section) -> str:
    """Return what to do about an error with this text; empty if nothing is known.

    Args:
        text: of the error.
        config: the configuration that has failed.
        section: its section whose engine was at work.
    """
    for pattern, advice in REMEDIES.items():
        if re.search(pattern, text, re.IGNORECASE):
            inverted = _inverts_prediction_alone(section)
            return advice.replace("{grids}", INVERTED if inverted else TWO_SHAPES).format(
                inverted=inverted,
                batch_size=_argument(config, section, "dataloader", "batch_size"),
                num_workers=_argument(config, section, "dataloader", "num_workers"),
                network=_argument(config, section, "model"),
                loss=_argument(config, section, "loss"),
                outputs=_outputs(config, section),
                crop=_crop(section),
            )
    return ""


def _inverts_prediction_alone(section: Section) -> str:
    for spec in section.specs("post_transforms"):
        node = spec.args.items.get("keys")
        keys = None if node is None else plain(node)
        if spec.title.startswith("Invert") and keys in ("pred", ["pred"]):
            return f"{spec.location}: {spec.title}"
    return ""


def _crop(section: Section) -> str:
    for spec in section.specs("pre_transforms"):
        for name in ("spatial_size", "roi_size"):
            if "Crop" in spec.title and name in spec.args.items:
                return f"the crop ({spec.args.location / name})"
    return "the crop"


def _outputs(config: WorkflowConfig, section: Section) -> str:
    for spec in _specs(config, section, "model"):
        for name in ("out_channels", "num_classes"):
            if name in spec.args.items:
                return str(spec.args.location / name)
    return "the network's outputs"


def _argument(config: WorkflowConfig, section: Section, entry: str, name: str = "") -> str:
    for spec in _specs(config, section, entry):
        return str(spec.args.location / name if name else spec.location)
    return name or entry


def _specs(config: WorkflowConfig, section: Section, entry: str) -> Iterator[ComponentSpec]:
    """Yield the components of an entry, the section's own first."""
    for each in (section, *config.scopes.values()):
        yield from each.specs(entry)
