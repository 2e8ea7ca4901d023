"""What people have decided about the arguments of components: the forms, and which one holds where.

``forms`` names the forms, ``arguments`` gives each argument one of them. Both are data, read by
``generate_component_table.py`` and reviewed like code.
"""
