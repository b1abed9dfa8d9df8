"""For the tests of those who use KQueue or extend it. Nothing else of KQueue imports it."""
