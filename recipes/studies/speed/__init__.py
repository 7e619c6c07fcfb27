"""What a training step costs, beside the same network without neurons and beside other libraries."""
