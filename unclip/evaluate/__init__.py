"""How good the pictures are: does a judge that made none of them find the caption in them, and how far are they from
real ones? Every number is reported beside the name and sha256 of the network that measured it."""
