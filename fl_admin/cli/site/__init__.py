"""``mmar site``: the commands of a site itself."""
