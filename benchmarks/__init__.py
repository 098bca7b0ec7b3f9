"""Measurements that anyone can repeat: each module ends with one line of JSON on stdout."""
