"""A kit after it was sent: a site's values are filled in, and everything that it needs is checked.

Read in this order: ``kit`` (a kit on disk), ``finding`` (what a check says), ``environment`` (a
site's own values), then the checks: ``kit_files``, ``certificates``, ``connection``, ``data``,
``machine``; and ``checks``, which runs them in order.
"""
