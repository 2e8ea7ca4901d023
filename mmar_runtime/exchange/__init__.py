"""What a site and a server of a federation say to each other, and in which form."""
