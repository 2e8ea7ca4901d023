"""Text becomes data: the JSON documents of an MMAR as frozen values, without torch or MONAI.

Read in this order: ``location`` (where), ``sources`` (JSON text and who may set which variable),
``variables`` (``{NAME}``), ``nodes`` (the grammar), ``expressions`` (``#...`` and ``lambda``),
``upgrades`` (old documents), ``sections`` and ``loader`` (the whole).
"""
