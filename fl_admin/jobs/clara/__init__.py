"""Jobs from the configurations of an old federation."""
