"""One site inside a federation: trains received weights on its own data, evaluates any model's.

The classes here know nothing of NVFlare; ``fl_client.flare`` translates between the two.
"""
