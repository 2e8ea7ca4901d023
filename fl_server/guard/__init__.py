"""What the replies of sites have to be."""
