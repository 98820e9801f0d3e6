"""The four networks of DALL·E 2, each readable on its own: CLIP, the prior, the decoder, the upsampler."""
