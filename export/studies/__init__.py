"""Studies of export that a checkout has and no installation: other runtimes, all networks, forms of the flat graph."""
