"""What cheap forms of gradient scaling cost, and how near to the exact rule they are."""
