"""What runs under valgrind, in the tree that is counted: a load in turns, and the two ways to drive it."""
