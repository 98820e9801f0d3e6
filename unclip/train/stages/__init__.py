"""The four stages of DALL·E 2 as the loop sees them, a file each. A recipe's dataclass stands above its stage."""
