"""Data lists as a site gets them ready: make one, check it, split it, without torch or MONAI.

Read in this order: ``document`` (a data list on disk), ``volumes`` (one image or label),
``report`` and ``checking`` (the faults and the content of a list), ``listing`` (a list from
folders), ``splitting`` (training, validation and test; folds).
"""
