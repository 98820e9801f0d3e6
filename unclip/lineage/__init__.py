"""The ancestors of DALL·E 2, a short file each over the blocks that DALL·E 2 itself is made of."""
