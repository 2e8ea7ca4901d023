"""Images and labels of cases: readers, words, and the errors that name them."""
