"""The blocks every network here is made of: one attention, one Transformer, one residual block, one U-Net."""
