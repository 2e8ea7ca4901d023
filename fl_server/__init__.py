"""The coordinator of a federation: first weights, guard, aggregation, model selection, records.

The classes here know nothing of NVFlare; ``fl_server.flare`` translates between the two.
"""
