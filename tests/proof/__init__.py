"""``make proof``: what ``--proof`` adds to the tests, in lots, and a torture of each store and setting."""
