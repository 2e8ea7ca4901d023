"""Data lists as a site gets them ready: make one, check it, split it, without torch or MONAI.

Read in this order: ``document`` (a data list on disk), ``volumes`` (one image or label),
``report`` and ``checking`` (what is wrong with a list and what is in it), ``listing`` (a list from
folders), ``splitting`` (training, validation and test; folds).
"""
