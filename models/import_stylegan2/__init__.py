"""Imports public StyleGAN2 weights (rosinality's `.pt`, NVIDIA's `.pkl`) as generator folders.

Reads them without running anything of theirs (safe_unpickle, torch_file), finds our tensors in
their layouts (rosinality, nvidia, tensor_table) and writes the folder (importer).
"""
