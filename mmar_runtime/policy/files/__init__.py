"""Facts about files: where a path leads, what an image is, what a folder holds, who may write."""
