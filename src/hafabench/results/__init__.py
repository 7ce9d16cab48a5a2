"""Records on disk and the pandas frame made of them."""
